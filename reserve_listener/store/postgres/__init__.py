"""The store on PostgreSQL, shared by any number of replicas. Only `reserve_listener.store` may import from here."""
