"""What every engine needs that starts shims: calls, events, log lines and commands."""
