"""The published platform API, below /v1. It has its responses, paging and errors over the shared services."""
