"""One module a command: `add_arguments(parser)` declares it, the handlers carry it out."""
