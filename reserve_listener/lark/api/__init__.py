"""The platform's HTTP API, as far as rooms go: an asynchronous client of our own. Callers need `answers` and `errors`."""
