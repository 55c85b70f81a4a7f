"""The webhook: pushes over HTTP."""
