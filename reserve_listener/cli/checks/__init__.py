"""What `check` looks at, a module for each kind of thing. Imported only when the command runs."""
