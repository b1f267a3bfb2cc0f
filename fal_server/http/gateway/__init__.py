"""Calls to apps: from a request to a runner and back."""
