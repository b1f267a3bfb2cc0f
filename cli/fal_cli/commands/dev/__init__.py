"""`fal dev`: serves an app. It does so again after each edit of its files."""
