"""Use cases, one file per noun. The core decides, and ports carry out the decision."""
