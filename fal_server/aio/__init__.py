"""Helpers for asyncio that know nothing of the controller, so every room may use them."""
