"""What the daemon lets people see: its log."""
