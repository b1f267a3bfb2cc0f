"""The dashboard at /ui: pages that the controller renders, for people at a browser."""
