"""`fal doctor`: finds problems, and says how to fix them."""
