"""The open connections of a listener, which it can end in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from fal_server.http.server.disconnects import DisconnectWatcher


class Member(Protocol):
    """A connection that can be ended."""

    def drain(self) -> None:
        """Finish current requests, accept nothing new, then close."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...

    def end_calls(self, name: str) -> None:
        """Close now if this key or membership admitted a current call."""
        ...


class Registry:
    """Holds every open connection.

    Attributes:
        disconnects: detects clients that leave while reading from them is paused.
        draining: whether the listener is closing, so that no response may offer to take another request.
    """

    __slots__ = ("_empty", "_members", "disconnects", "draining")

    def __init__(self) -> None:
        self._members: set[Member] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.disconnects = DisconnectWatcher()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    def add(self, member: Member) -> None:
        """Add a connection that was opened."""
        self._members.add(member)
        self._empty.clear()
        if self.draining:
            member.drain()

    def discard(self, member: Member) -> None:
        """Remove a connection that was closed or replaced by another member."""
        self._members.discard(member)
        if not self._members:
            self._empty.set()

    def drain(self) -> None:
        """Let every connection finish its current requests, then close."""
        self.draining = True
        for member in tuple(self._members):
            member.drain()

    def end_calls(self, name: str) -> None:
        """Close connections with a current call that this key or membership admitted."""
        for member in tuple(self._members):
            member.end_calls(name)

    async def close(self, grace_seconds: float) -> None:
        """Drain all connections, and abort those that are open after the grace."""
        self.drain()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._empty.wait()
        except TimeoutError:
            for member in tuple(self._members):
                member.abort()
            await self._empty.wait()
        self.disconnects.close()
