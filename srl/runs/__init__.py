"""A run in MLflow: its store, where it came from, and its way to a server."""
