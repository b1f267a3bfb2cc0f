"""What a runner prints: read, split into lines, cleaned of secrets, kept on disk until it is stored."""
