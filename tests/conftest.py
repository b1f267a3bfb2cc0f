"""Settings of all test processes: Ctrl-C works, also in child processes, and examples have no time limit."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell starts background processes with SIGINT ignored, and programs inherit that: a test could not interrupt its
# commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test has a time limit, because a slow machine is not a failure.
settings.register_profile("fal", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)  # of `make check`; `make test` tries more
settings.load_profile("fal")
