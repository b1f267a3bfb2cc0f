"""Commands that run beside the worker. A socket serves calls about them."""
