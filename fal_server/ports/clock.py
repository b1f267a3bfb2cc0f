"""The Protocol of the time: loops and services never ask the machine themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks, both aware and in UTC."""

    def now(self) -> datetime:
        """Return the controller's time, by which every duration is counted. It never steps."""
        ...

    def wall(self) -> datetime:
        """Return the machine's wall clock, for what other machines compare with theirs."""
        ...
