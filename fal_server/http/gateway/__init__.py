"""Relays calls to apps: a request to a runner, the response back."""
