"""The local terminal while a remote command uses it."""
