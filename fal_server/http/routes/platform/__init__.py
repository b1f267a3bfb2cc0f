"""The published platform API, below /v1: its own answers, paging and errors over the services of all other routes."""
