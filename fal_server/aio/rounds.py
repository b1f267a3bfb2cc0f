"""Repeats rounds of work for the life of the controller. Every loop uses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from fal_grpc.backoff import Backoff
from fal_server.core.faults import Fault

log = logging.getLogger(__name__)
_AFTER_FAILURES = Backoff(first_seconds=0.25, longest_seconds=5.0)


class Wake(Protocol):
    """Triggers the next round early; see `live.events.ChangeNotifier`."""

    @property
    def count(self) -> int:
        """Return the number of triggers so far."""
        ...

    async def wait(self, seen: int, timeout_seconds: float | None = None) -> int:
        """Wait until the count exceeds `seen` or the time is over. None waits forever."""
        ...


class Rounds:
    """Repeats a round of work, even if single rounds fail.

    A round that raises is logged and counted, and the next one comes after a growing pause: one poisoned item must not
    stop everything else.

    Args:
        name: the loop's name in the log, such as `reconciler`.
        work: does one round, and returns the seconds until the next; None if only a trigger starts it.
        after_failures: the pauses after failed rounds.

    Attributes:
        failures: the number of failed rounds so far.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[float | None]], *, after_failures: Backoff = _AFTER_FAILURES
    ) -> None:
        self._name = name
        self._work = work
        self._after_failures = after_failures
        self._in_a_row = 0
        self.failures = 0

    async def run(self, wake: Wake) -> None:
        """Repeat at every change and whenever a round asks, until cancelled."""
        while True:
            seen = wake.count
            seconds = await self._round()
            if self._in_a_row:
                await asyncio.sleep(seconds or 0)  # changes may come all the time, but do not shorten this pause
            else:
                await wake.wait(seen, seconds)

    async def run_until(self, stopping: asyncio.Event) -> None:
        """Repeat until `stopping` is set; a round in progress then ends first."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(await self._round()):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def _round(self) -> float | None:
        """Do one round; return the seconds until the next."""
        try:
            seconds = await self._work()
        except Exception as error:
            self._in_a_row += 1
            self.failures += 1
            seconds = self._after_failures.pause(self._in_a_row)
            if isinstance(error, Fault):
                log.warning("%s: trying again in %.1f s: %s", self._name, seconds, error.message)
            else:
                log.exception("%s failed (%d in a row): trying again in %.1f s", self._name, self._in_a_row, seconds)
        else:
            self._in_a_row = 0
        return seconds


def every(name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> Rounds:
    """Return rounds that do `work` at once and then every `seconds` seconds."""

    async def one() -> float:
        await work()
        return seconds

    return Rounds(name, one, after_failures=Backoff(first_seconds=seconds / 20, longest_seconds=seconds))
