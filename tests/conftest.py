"""Settings of all test processes: Ctrl-C works, also in child processes, and examples have no time limit."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell starts background processes with SIGINT ignored, and programs inherit that: a test could not interrupt its
# commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test has a time limit, because a slow machine is not a failure.
# Each run tries the same examples, so that a failure belongs to the change under test. `make properties` tries others.
settings.register_profile("fal", deadline=None, derandomize=True)
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20)  # of `make check`
settings.register_profile("search", deadline=None, print_blob=True)  # of `make properties`
settings.load_profile("fal")
