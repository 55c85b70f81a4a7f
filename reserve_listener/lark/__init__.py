"""What both transports and the simulator share of the platform."""
