"""Waits for something in another process by polling. The timeout only guards against hanging."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    """Wait until `look` returns something true; return that."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        select.select([], [], [], 0.05)
    return found
