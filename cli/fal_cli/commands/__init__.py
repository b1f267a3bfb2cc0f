"""One module or folder a command: `add_arguments(parser)` declares it, handlers run it."""
