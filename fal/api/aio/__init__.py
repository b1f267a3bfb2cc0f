"""The asyncio side of the SDK. Most blocking modules of `fal.api` are generated from the modules here."""
