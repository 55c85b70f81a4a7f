"""The daemon: its parts put together, its life from start to stop, and how people ask it."""
