"""Processes, descriptors and ports of the machine, as the shim handles them."""
