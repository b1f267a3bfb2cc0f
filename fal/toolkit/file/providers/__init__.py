"""Repositories for files. They are the platform, S3, R2, Google Cloud Storage, and the response itself."""
