"""Runs `fal`, and sends a signal at its main thread's Nth step. A step is a call or return of any function.

Steps are counted from when `fal` handles signals; before that only Python itself starts.

Usage: python injector.py REPORT STEP SIGNAL ARGUMENTS...; STEP 0 only counts. REPORT gets `fired` or the count.
"""

from __future__ import annotations

import _signal as early
import os
import sys

report, step, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv[1:4] = []
sys.path[0] = ""
steps = 0
end_process = os._exit


def write(text: str) -> None:
    handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, text.encode())
    os.close(handle)


def at_end(code: int) -> None:
    sys.setprofile(None)
    if not step:
        write(str(steps))
    end_process(code)


def at_step(_frame: object, _event: str, _argument: object) -> None:
    global steps
    steps += early.getsignal(early.SIGHUP) is not early.SIG_DFL
    if steps == step > 0:
        sys.setprofile(None)
        write("fired")
        os.kill(os.getpid(), number)


os._exit = at_end
sys.setprofile(at_step)
from fal_cli.__main__ import main  # noqa: E402 - its import is part of the program's life

code = main()
sys.stderr.flush()
at_end(code)
