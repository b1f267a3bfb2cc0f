"""Requests that have ended and are not stored yet: a bounded buffer between the calls and the one who stores."""

from __future__ import annotations

from typing import TypeAlias

from fal_server.core.requests import DirectRequest, RequestRecord

MOST = 65_536
"""So many wait at most: some twenty seconds of calls at the speed of one controller, in about 40 MiB."""

Ended: TypeAlias = "DirectRequest | RequestRecord"


class EndedRequests:
    """Hold requests from their end until they are stored. Adding never waits: what finds no room is counted.

    Owned: by the process that answered them. What is not stored when it is killed is lost.

    Attributes:
        dropped: how many found no room.
        added: how many ended, with those that found no room.
    """

    __slots__ = ("_most", "_waiting", "added", "dropped")

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: list[Ended] = []
        self.added = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Ended) -> None:
        """Hold a request that has ended."""
        self.added += 1
        if len(self._waiting) < self._most:
            self._waiting.append(request)
        else:
            self.dropped += 1

    def take(self) -> list[Ended]:
        """Return what waits, the oldest first, and hold it no longer."""
        taken, self._waiting = self._waiting, []
        return taken
