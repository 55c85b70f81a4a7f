"""The sinks: one file each, all behind `protocols.Sink`."""
