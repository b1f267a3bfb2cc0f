"""The Protocol of the clock. Loops and services never read the machine's time themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks, both aware and in UTC."""

    def now(self) -> datetime:
        """Return the controller's monotonic time, which measures every duration."""
        ...

    def wall(self) -> datetime:
        """Return the machine's wall clock. Other machines compare such times with theirs."""
        ...
