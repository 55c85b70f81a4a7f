"""What is asked of a running daemon over HTTP: the control socket, and the API to come."""
