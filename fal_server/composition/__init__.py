"""Builds the controller from its parts: settings, state directory, adapters, loops, shutdown, the process."""
