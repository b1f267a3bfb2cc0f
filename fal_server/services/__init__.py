"""Use cases, one file a noun: core decides, ports carry out."""
