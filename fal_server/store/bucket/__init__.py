"""Content in a bucket of S3, with copies on this machine."""
