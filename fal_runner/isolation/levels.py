"""The levels of isolation between runners."""

from __future__ import annotations

import enum


class Isolation(enum.Enum):
    """A level of isolation. Each stops all that weaker ones stop; see docs/explanation/security.md."""

    PROCESS = "process"
    VIEW = "view"
    NONE = "none"

    @property
    def strength(self) -> int:
        """The rank of a level: larger means stronger."""
        return list(reversed(Isolation)).index(self)

    @property
    def meaning(self) -> str:
        """A description in one line."""
        return _MEANINGS[self]


_MEANINGS = {
    Isolation.PROCESS: "a runner has files and processes of its own, and no rights",
    Isolation.VIEW: "a runner has its own /data and /app, and can reach all else that this user can",
    Isolation.NONE: "a runner can reach all that this user can",
}
