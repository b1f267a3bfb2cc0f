"""Ray decides on which machine a runner starts. Node processes run it there."""
