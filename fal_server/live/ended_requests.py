"""Ended requests that are not stored yet. They are in a bounded buffer between the calls and the storing task."""

from __future__ import annotations

from typing import TypeAlias

from fal_server.core.requests import DirectRequest, QueuedTrace, RequestRecord

MOST = 65_536
"""The most waiting requests: some twenty seconds of calls at one controller's top speed, in about 40 MiB."""

Ended: TypeAlias = "DirectRequest | RequestRecord | QueuedTrace"


class EndedRequests:
    """Holds requests from their end until they are stored. Adding never waits: excess requests are only counted.

    Owned: by the process that answered them. Requests that are not stored when it is killed are lost.

    Attributes:
        dropped: how many found no room.
        added: how many ended, including those that found no room.
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
        """Return the waiting requests, oldest first, and hold them no longer."""
        taken, self._waiting = self._waiting, []
        return taken
