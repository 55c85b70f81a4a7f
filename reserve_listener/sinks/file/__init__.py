"""The file sink: its settings and how it is made (`kind`), the sink itself (`sink`), what rotates its files."""
