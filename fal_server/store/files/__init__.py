"""Content on disk: blobs, app files, /data and uploads."""
