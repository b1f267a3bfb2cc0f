"""What every test process needs: Ctrl-C works in it and what it starts, and no example has a time limit."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell starts what runs in the background with SIGINT ignored, and programs inherit that: commands that a test
# interrupts would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test has a time limit: a loaded machine is no failure.
settings.register_profile("fal", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)  # of `make check`; `make test` tries more
settings.load_profile("fal")
