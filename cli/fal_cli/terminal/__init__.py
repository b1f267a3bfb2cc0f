"""This terminal while a remote command has it."""
