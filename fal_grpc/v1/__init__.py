"""Generated from protos/fal/v1 by `make proto`; do not edit."""
