"""Moves this process's wall clock by the seconds that the file CLOCK_STEP says, at any time."""

import os
import time

_handle = os.open(os.environ["CLOCK_STEP"], os.O_RDONLY)
_real = time.time


def stepped() -> float:
    """Return the moved wall clock."""
    return _real() + float(os.pread(_handle, 32, 0))


time.time = stepped
