"""What a runner sees of the machine: its own view of the file system, or a container."""
