"""General asyncio code. It knows nothing of the controller, so every package may use it."""
