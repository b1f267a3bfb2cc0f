"""The open connections of a front door, so that it can end them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from fal_server.http.server.disconnects import DisconnectWatcher


class Member(Protocol):
    """A connection."""

    def drain(self) -> None:
        """Finish what is under way, take nothing new, close."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...


class Registry:
    """Knows every open connection.

    Attributes:
        hangups: notices clients that leave while they are not read from.
        draining: whether the door is closing, so that no answer may promise a next request.
    """

    __slots__ = ("_empty", "_members", "draining", "hangups")

    def __init__(self) -> None:
        self._members: set[Member] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.hangups = DisconnectWatcher()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    def add(self, member: Member) -> None:
        """A connection was opened."""
        self._members.add(member)
        self._empty.clear()
        if self.draining:
            member.drain()

    def discard(self, member: Member) -> None:
        """A connection was closed, or another member stands for it now."""
        self._members.discard(member)
        if not self._members:
            self._empty.set()

    def drain(self) -> None:
        """Let every connection finish what is under way, and close."""
        self.draining = True
        for member in tuple(self._members):
            member.drain()

    async def close(self, grace_seconds: float) -> None:
        """Drain all connections, and abort those that are left after the grace."""
        self.drain()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._empty.wait()
        except TimeoutError:
            for member in tuple(self._members):
                member.abort()
            await self._empty.wait()
        self.hangups.close()
