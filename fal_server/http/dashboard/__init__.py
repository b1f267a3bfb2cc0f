"""The dashboard at /ui: pages for people, rendered by the controller."""
