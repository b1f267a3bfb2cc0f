"""What runs for the life of the controller: sample, decide, apply."""
