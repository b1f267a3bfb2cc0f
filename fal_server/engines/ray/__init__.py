"""Ray decides on which machine a runner starts; node processes run it there."""
