"""The shim's access to processes, descriptors and ports of the machine."""
