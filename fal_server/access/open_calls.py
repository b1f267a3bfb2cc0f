"""Ends calls when the key or team membership that permits them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

from fal_server.core.faults import Fault, PermissionDenied, Unauthenticated
from fal_server.core.identity import Principal

ANOTHER_KEY: Final = (
    "`fal profile key` or FAL_KEY takes another one, `fal keys create` makes one with a valid key; without any, "
    "ask whoever runs the controller, who can make one with `fal up --new-key`"
)
"""Advice for a caller whose key has ended: first what callers can do, then what the owner can."""


class OpenCalls:
    """The calls in progress, by the names that permit them. These are a key's id, and a membership.

    Owned: by the process that serves the calls.
    """

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._tasks: dict[str, set[asyncio.Task[object]]] = {}
        self._reasons: dict[asyncio.Task[object], Fault] = {}
        self._enders: list[Callable[[str], None]] = []

    def on_end(self, end_calls: Callable[[str], None]) -> None:
        """Call a function with each name that ends. It ends the calls that are not tasks."""
        self._enders.append(end_calls)

    def check(self, key_id: str) -> None:
        """Refuse a call whose key has ended during its look-up.

        Raises:
            Unauthenticated: the key has ended.
        """
        if key_id in self._ended:
            raise _ended(key_id)

    def end(self, key_id: str) -> None:
        """End all calls of a key except the current one. Refuse new ones."""
        self._ended.add(key_id)
        self._end(key_id, _ended(key_id))

    def end_membership(self, membership: str, why: str, *, for_good: bool) -> None:
        """End a member's calls for a team, except the current one.

        Args:
            membership: see `Principal.membership`.
            why: the message for the callers.
            for_good: also refuse new calls, until the membership starts again.
        """
        if for_good:
            self._ended.add(membership)
        self._end(membership, PermissionDenied(why))

    def begin_membership(self, membership: str) -> None:
        """Allow a member's calls again."""
        self._ended.discard(membership)

    def check_caller(self, principal: Principal) -> None:
        """Refuse a caller whose key or membership has ended during its look-up.

        Raises:
            Unauthenticated: the key has ended.
            PermissionDenied: the membership has.
        """
        self.check(principal.key_id)
        if principal.membership in self._ended:
            raise PermissionDenied("your membership of the team has ended: `fal teams list` shows yours")

    @contextmanager
    def in_this_task(self, principal: Principal) -> Generator[None]:
        """Cancel the task if the key or membership ends during the block.

        Raises:
            Unauthenticated: the key has ended.
            PermissionDenied: the membership has.
        """
        self.check_caller(principal)
        task = asyncio.current_task()
        assert task is not None
        names = [name for name in (principal.key_id, principal.membership) if name]
        for name in names:
            self._tasks.setdefault(name, set()).add(task)
        try:
            yield
        except asyncio.CancelledError:
            reason = self._reasons.get(task)
            if reason is None:
                raise
            task.uncancel()
            raise reason from None
        finally:
            self._reasons.pop(task, None)
            for name in names:
                tasks = self._tasks[name]
                tasks.discard(task)
                if not tasks:
                    del self._tasks[name]

    async def ended(self, names: Iterable[str]) -> None:
        """Wait until no call of these names runs, except the current one."""
        asking = asyncio.current_task()
        while tasks := {task for name in names for task in self._tasks.get(name, ()) if task is not asking}:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # a task may end its call and continue

    def _end(self, name: str, reason: Fault) -> None:
        asking = asyncio.current_task()
        for task in self._tasks.get(name, ()):
            if task is not asking:
                self._reasons[task] = reason
                task.cancel()
        for end_calls in self._enders:
            end_calls(name)


def _ended(key_id: str) -> Unauthenticated:
    return Unauthenticated(f"key {key_id} is revoked or has expired: {ANOTHER_KEY}")
