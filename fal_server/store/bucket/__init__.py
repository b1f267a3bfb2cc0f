"""Content in a bucket of S3, or of what speaks it, with copies on this machine."""
