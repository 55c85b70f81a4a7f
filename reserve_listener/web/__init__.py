"""The running daemon over HTTP: the control socket, and the port of `[status]` with the API and the page."""
