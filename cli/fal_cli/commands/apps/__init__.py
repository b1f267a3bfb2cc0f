"""`fal apps`."""
