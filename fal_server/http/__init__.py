"""HTTP: the server, calls to apps, the controller's own paths, and calls to other hosts."""
