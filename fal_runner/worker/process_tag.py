"""The word in the environment of everything that is a runner's, and how a process that waited for its runner takes it.

Used by the worker too: standard library alone, Python 3.8.
"""

from __future__ import annotations

import ctypes
import os

TAG_VARIABLE = "FAL_RUNNER_MARK"
NO_TAG = "0" * 32
"""Of a process that has no runner yet; as long as every mark."""


def take_tag(mark: str) -> None:
    """Carry this mark from now on, where this process was started with `NO_TAG` as its mark.

    What others read in /proc/PID/environ are the bytes that the kernel laid down at the start, so these are changed in
    their place.

    Raises:
        ValueError: it was not started so, or the mark has another length.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(TAG_VARIABLE.encode())
    if place is None or len(mark) != len(NO_TAG) or ctypes.string_at(place) != NO_TAG.encode():
        raise ValueError("this process was not started to take a mark")
    ctypes.memmove(place, mark.encode(), len(mark))
    os.environ[TAG_VARIABLE] = mark
