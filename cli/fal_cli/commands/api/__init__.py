"""`fal api`."""
