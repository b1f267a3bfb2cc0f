"""Watched lists without I/O: applying changes, and reconnecting."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from fal_grpc.adapter.runner import RunnerState, aged
from fal_grpc.backoff import Backoff
from fal_grpc.errors import UnavailableError

if TYPE_CHECKING:
    from fal_grpc.adapter.app import AliasInfo
    from fal_grpc.adapter.changes import Changes
    from fal_grpc.adapter.runner import RunnerInfo

log = logging.getLogger(__name__)
T = TypeVar("T")
POLL_SECONDS = 2.0
"""Seconds between two fetches of a list from a controller without watches."""

MAX_RECONNECTS = 160
"""Consecutive attempts to reconnect: about ten minutes."""

_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)
_ENDED = (RunnerState.TERMINATED, RunnerState.DEAD)


class WatchedList(ABC, Generic[T]):
    """A list that a watch's messages keep up to date. Logs a lost and restored connection at INFO.

    Attributes:
        version: the last version applied, to resume from.
    """

    def __init__(self) -> None:
        self.version = ""
        self._items: dict[str, T] = {}
        self._pages: list[Changes[T]] = []
        self._failures = 0

    def take(self, changes: Changes[T]) -> bool:
        """Apply a message; return whether the list is complete again."""
        if self._failures:
            log.info("The controller is reached again.")
        self._failures = 0
        self._pages.append(changes)
        if not changes.version:
            return False
        for page in self._pages:
            if page.snapshot:
                self._items.clear()
            for item in page.items:
                self._put(item)
            for name in page.removed:
                self._items.pop(name, None)
        self._pages.clear()
        self.version = changes.version
        return True

    def pause(self, error: UnavailableError | None) -> float:
        """Return the seconds to wait before the next attempt to resume.

        Args:
            error: what ended the stream; None if it ended without an error.

        Raises:
            UnavailableError: `error`, if nothing was ever received or the stream failed too often in a row.
        """
        self._pages.clear()
        self._failures += 1
        if not self.version or self._failures > MAX_RECONNECTS:
            raise error or UnavailableError("The controller ended the stream.")
        if self._failures == 1:
            log.info("The connection to the controller broke; trying again.")
        return _BACKOFF.pause(self._failures)

    @abstractmethod
    def items(self) -> list[T]:
        """Return the current list."""

    @abstractmethod
    def _put(self, item: T) -> None:
        """Add or replace an item."""


def filtered(apps: list[AliasInfo], text: str | None) -> list[AliasInfo]:
    """Return the apps whose name contains a text; None matches all."""
    return [app for app in apps if text in app.alias] if text else apps


class WatchedApps(WatchedList["AliasInfo"]):
    """The apps of an environment, by name.

    Args:
        filter: only apps whose name contains this text; None matches all.
    """

    def __init__(self, filter: str | None) -> None:  # noqa: A002 - as the list's argument
        super().__init__()
        self._filter = filter

    def items(self) -> list[AliasInfo]:
        return filtered([app for _, app in sorted(self._items.items())], self._filter)

    def _put(self, item: AliasInfo) -> None:
        self._items[item.alias] = item


class WatchedRunners(WatchedList["RunnerInfo"]):
    """Runners, oldest first, whose durations advance between two messages.

    Args:
        since: keep those that ended at or after this time; None keeps no ended ones.
        states: only those in one of these; None matches any.
    """

    def __init__(self, *, since: datetime | None, states: Collection[RunnerState] | None) -> None:
        super().__init__()
        self._keeps_ended = since is not None
        self._states = states
        self._seen_at: dict[str, float] = {}

    def items(self) -> list[RunnerInfo]:
        now = time.monotonic()
        return [
            runner if runner.state in _ENDED else aged(runner, now - self._seen_at[runner_id])
            for runner_id, runner in self._items.items()
            if self._states is None or runner.state in self._states
        ]

    def _put(self, item: RunnerInfo) -> None:
        if item.state in _ENDED and not self._keeps_ended:
            self._items.pop(item.runner_id, None)
            self._seen_at.pop(item.runner_id, None)
            return
        self._items[item.runner_id] = item
        self._seen_at[item.runner_id] = time.monotonic()
