"""What every engine that starts shims needs. These are calls, events, log lines and commands."""
