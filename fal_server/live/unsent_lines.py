"""Which runners have lines that a log drain has not read yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from fal_server.core.drains import LogDrain
from fal_server.core.logs import LogEntry
from fal_server.live.events import ChangeNotifier


class Behind:
    """The runners with lines for one drain, the longest waiting first.

    Cache: the store finds them again at the start.

    Attributes:
        changed: notified when there are more.
    """

    def __init__(self, drain: LogDrain) -> None:
        self.drain = drain
        self.changed = ChangeNotifier()
        self._runners: dict[str, int] = {}  # how often each was added

    @property
    def runners(self) -> frozenset[str]:
        """Every runner whose lines wait."""
        return frozenset(self._runners)

    def add(self, runners: Iterable[str]) -> None:
        """Note that runners have lines that were not read."""
        for runner_id in runners:
            self._runners[runner_id] = self._runners.get(runner_id, 0) + 1
        self.changed.notify()

    def first(self, most: int) -> dict[str, int]:
        """Return the first runners, for `passed`; their lines still wait."""
        return dict(islice(self._runners.items(), most))

    def passed(self, runners: Mapping[str, int], left: AbstractSet[str]) -> None:
        """Forget runners whose lines were read. Put those with more of them behind the others.

        Args:
            runners: what `first` returned; those that have written since then stay.
            left: those with more lines than were read.
        """
        for runner_id, added in runners.items():
            now = self._runners.pop(runner_id)
            if now != added or runner_id in left:
                self._runners[runner_id] = now


class UnsentLines:
    """For each drain, the runners that have written since its last read.

    Cache: the store finds them again at the start.
    """

    def __init__(self) -> None:
        self._behind: dict[str, Behind] = {}

    @property
    def drain_ids(self) -> frozenset[str]:
        """The drains that are followed."""
        return frozenset(self._behind)

    def follow(self, drain: LogDrain) -> Behind:
        """Note the runners of a drain from now on."""
        return self._behind.setdefault(drain.drain_id, Behind(drain))

    def of(self, drain_id: str) -> Behind | None:
        """Return what waits for a drain; None if it is not followed."""
        return self._behind.get(drain_id)

    def leave(self, drain_id: str) -> None:
        """Forget a drain."""
        self._behind.pop(drain_id, None)

    def stored(self, entries: Sequence[LogEntry]) -> None:
        """Note the runners of lines that are stored, or may be."""
        if not self._behind:
            return
        runners = {(entry.account, entry.app_name, entry.runner_id) for entry in entries}
        for behind in self._behind.values():
            found = [runner for account, app, runner in runners if behind.drain.covers(account, app)]
            if found:
                behind.add(found)
