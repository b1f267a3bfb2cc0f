"""Commands that run beside the worker, and the socket that serves calls about them."""
