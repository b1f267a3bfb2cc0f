"""The controller's HTTP calls to other hosts: webhooks and uploads by URL."""
