"""The tag in the environment of a runner's processes. It also describes how a prewarmed process gets one.

The worker uses it, too: only the standard library, Python 3.8.
"""

from __future__ import annotations

import ctypes
import os

TAG_VARIABLE = "FAL_RUNNER_MARK"
NO_TAG = "0" * 32
"""The tag of a process that has no runner yet; it has the same length as any other."""


def take_tag(tag: str) -> None:
    """Give this process a tag; it was started with `NO_TAG`.

    Other processes read the kernel's original bytes in /proc/PID/environ, so these are overwritten.

    Raises:
        ValueError: the process was not started with `NO_TAG`, or the tag has another length.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(TAG_VARIABLE.encode())
    if place is None or len(tag) != len(NO_TAG) or ctypes.string_at(place) != NO_TAG.encode():
        raise ValueError("this process was not started to take a tag")
    ctypes.memmove(place, tag.encode(), len(tag))
    os.environ[TAG_VARIABLE] = tag
