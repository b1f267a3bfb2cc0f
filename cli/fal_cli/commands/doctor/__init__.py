"""`fal doctor`: finds what is wrong, and says what fixes it."""
