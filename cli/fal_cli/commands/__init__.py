"""One module or folder for each command: `add_arguments(parser)` declares it, handlers run it."""
