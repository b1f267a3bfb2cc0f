"""HTTP calls of the controller to other hosts: webhooks and uploads by URL."""
