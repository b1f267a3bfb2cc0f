"""Use cases, one file per noun: core decides, ports carry out the decision."""
