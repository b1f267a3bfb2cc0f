"""Commands that run beside the worker, and the socket on which they are asked for."""
