"""The time, as a port: loops and services never ask the machine themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """The current moment, aware, in UTC."""
        ...
