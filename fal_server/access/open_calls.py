"""Ends the calls that are under way with a key when the key comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from fal_server.core.faults import Unauthenticated

ANOTHER_KEY: Final = "use another one; `fal up --new-key` makes one where the controller runs"
"""What helps a caller whose key has ended, also if it was the last one."""


class OpenCalls:
    """The calls that are under way, by their keys.

    Owned: by the process that serves the calls.
    """

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._tasks: dict[str, set[asyncio.Task[object]]] = {}
        self._enders: list[Callable[[str], None]] = []

    def on_end(self, end_calls: Callable[[str], None]) -> None:
        """Have a function called with the id of each key that ends; it ends the calls that are no tasks."""
        self._enders.append(end_calls)

    def check(self, key_id: str) -> None:
        """Refuse a call whose key has ended while it was looked up.

        Raises:
            Unauthenticated: the key has ended.
        """
        if key_id in self._ended:
            raise _ended(key_id)

    def end(self, key_id: str) -> None:
        """End every call of a key except the one that asks for it, and refuse those that begin from now on."""
        self._ended.add(key_id)
        asking = asyncio.current_task()
        for task in self._tasks.get(key_id, ()):
            if task is not asking:
                task.cancel()
        for end_calls in self._enders:
            end_calls(key_id)

    @contextmanager
    def in_this_task(self, key_id: str) -> Generator[None]:
        """Cancel the task if the key ends meanwhile.

        Raises:
            Unauthenticated: the key has ended.
        """
        self.check(key_id)
        task = asyncio.current_task()
        assert task is not None
        tasks = self._tasks.setdefault(key_id, set())
        tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if key_id not in self._ended:
                raise
            task.uncancel()
            raise _ended(key_id) from None
        finally:
            tasks.discard(task)
            if not tasks:
                self._tasks.pop(key_id, None)


def _ended(key_id: str) -> Unauthenticated:
    return Unauthenticated(f"key {key_id} is revoked or has expired: {ANOTHER_KEY}")
