"""The published platform API, below /v1: its responses, paging and errors over the shared services."""
