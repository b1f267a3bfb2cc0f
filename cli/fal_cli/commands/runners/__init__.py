"""`fal runners`."""
