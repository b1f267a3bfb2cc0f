"""Tunes the garbage collector for a long-lived process."""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Freeze all objects allocated so far so that the collector skips them.

    Modules, tables and loaded runners live as long as the process. A full collection over them stops the event loop for
    tens of milliseconds, which delays requests and the reconciler.
    """
    gc.collect(1)  # young garbage of the start must not be frozen
    gc.freeze()
