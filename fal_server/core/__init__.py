"""Pure decisions and their values: no I/O, no clock, no event loop."""
