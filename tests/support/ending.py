"""Ends servers under test with their parent process. They end even if the tests are killed."""

from __future__ import annotations

import signal
import sys

# 1 is PR_SET_PDEATHSIG.
_CODE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


def ends_with_us(number: signal.Signals) -> list[str]:
    """Return a prefix for a command (by path). It sends the command a signal when the starting thread ends."""
    return [sys.executable, "-c", _CODE, str(int(number))]
