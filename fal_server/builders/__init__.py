"""What builds the environments that apps run in: the adapters of the Builder port."""
