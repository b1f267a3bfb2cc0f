"""Servers under test end with what started them, also where a test fails or is killed before it stops them."""

from __future__ import annotations

import signal
import sys

# 1 is PR_SET_PDEATHSIG.
_CODE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


def ends_with_us(number: signal.Signals) -> list[str]:
    """What to put before a command, given by its path: it gets this signal when the thread that started it ends."""
    return [sys.executable, "-c", _CODE, str(int(number))]
