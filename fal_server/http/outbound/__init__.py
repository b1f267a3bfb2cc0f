"""HTTP calls that the controller makes to elsewhere: webhooks and uploads by URL."""
