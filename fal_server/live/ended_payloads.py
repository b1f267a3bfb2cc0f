"""Inputs and outputs of ended requests that are not stored yet. Their buffer is bounded like that of the requests."""

from __future__ import annotations

from fal_server.core.payloads import EndedPayload

MOST_BYTES = 32 * 1024 * 1024
"""The most that waits; further payloads are dropped, and counted."""
_BESIDE_THE_BODIES = 512


class EndedPayloads:
    """Holds payloads from their requests' ends until they are stored. Adding never waits.

    Owned: by the process that answered them. Those that are not stored when it is killed are lost.

    Attributes:
        dropped: how many found no room.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._waiting: list[EndedPayload] = []
        self._bytes = 0
        self.dropped = 0

    def add(self, payload: EndedPayload) -> None:
        """Hold what an ended request sent and got."""
        size = len(payload.input or b"") + len(payload.output or b"") + _BESIDE_THE_BODIES
        if self._bytes + size > self._most_bytes:
            self.dropped += 1
            return
        self._bytes += size
        self._waiting.append(payload)

    def take(self) -> list[EndedPayload]:
        """Return the waiting payloads, and hold them no longer."""
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken
