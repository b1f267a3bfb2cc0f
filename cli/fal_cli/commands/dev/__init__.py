"""`fal dev`: serves an app, and again after each edit of its files."""
