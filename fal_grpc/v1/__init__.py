"""Generated from protos/fal/v1 by `make proto`; not to be edited."""
