"""Runs runners on other machines, through the node process of each."""
