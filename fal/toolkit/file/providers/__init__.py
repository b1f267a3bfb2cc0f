"""Repositories for files: the platform, S3, R2, Google Cloud Storage, or the response itself."""
