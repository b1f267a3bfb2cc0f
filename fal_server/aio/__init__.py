"""General asyncio code that knows nothing of the controller, so every room may use it."""
