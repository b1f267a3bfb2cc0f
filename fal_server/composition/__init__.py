"""Builds the controller from its parts. They are settings, state directory, adapters, loops, shutdown, the process."""
