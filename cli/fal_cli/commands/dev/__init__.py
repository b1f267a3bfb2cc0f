"""`fal dev`: serves an app, and serves it again after each edit of its files."""
