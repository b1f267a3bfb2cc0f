"""Calls to apps: relays a request to a runner and the response back."""
