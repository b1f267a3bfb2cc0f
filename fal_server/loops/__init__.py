"""Loops that run for the life of the controller: sample, decide, apply."""
