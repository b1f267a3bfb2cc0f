"""Where files can be stored: on the platform, in S3, R2 or Google Cloud Storage, or in the answer itself."""
