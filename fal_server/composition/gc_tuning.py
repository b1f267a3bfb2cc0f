"""The garbage collector of a process that lives long: what is there at the start is not looked through every time."""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Take everything that is there now out of the collector's rounds.

    Modules, tables and the runners that were loaded stay for the life of the process. A full round over them stops the
    event loop for tens of milliseconds, which a tick of the reconciler or a request then has to wait for.
    """
    gc.collect(1)  # the young: what starting left behind
    gc.freeze()
