"""The HTTP server, calls to apps, and calls to other hosts. The controller's own paths are here, too."""
