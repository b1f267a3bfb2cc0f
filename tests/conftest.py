"""What every test process needs: Ctrl-C works in it and in what it starts."""

from __future__ import annotations

import signal

# A shell starts what runs in the background with SIGINT ignored, and programs inherit that: commands that a test
# interrupts would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
