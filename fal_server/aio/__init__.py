"""General asyncio code that knows nothing of the controller, so every package may use it."""
