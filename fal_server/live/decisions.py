"""The latest decisions about each app, for `fal apps explain`."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

from fal_server.core.autoscale import Load
from fal_server.ports import Clock

MOST_DECISIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One decision.

    Value: it never changes.

    Attributes:
        action: start, hold, drain, drop, kill, move or abandon.
        subject: the runner; for start, move and abandon the revision.
        reason: for people.
        load: what the app had to do then.
    """

    at: datetime
    action: str
    subject: str
    reason: str
    load: Load


class Decisions:
    """Keep the latest decisions about each app.

    Owned: by the controller that decides; a restart loses them, which harms nobody.

    Attributes:
        since: when the first of them may have been made.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.since = clock.now()
        self._rings: dict[str, deque[Decided]] = {}

    def keep(self, app_name: str, action: str, subject: str, reason: str, load: Load) -> None:
        """Keep a decision, and drop the oldest if there are too many."""
        ring = self._rings.get(app_name)
        if ring is None:
            ring = self._rings[app_name] = deque(maxlen=MOST_DECISIONS)
        decided = Decided(at=self._clock.now(), action=action, subject=subject, reason=reason, load=load)
        ring.append(decided)

    def of(self, app_name: str) -> Sequence[Decided]:
        """Return the decisions about an app, oldest first."""
        return tuple(self._rings.get(app_name, ()))

    def prune(self, apps: Container[str]) -> None:
        """Drop the decisions about all other apps."""
        for name in [name for name in self._rings if name not in apps]:
            del self._rings[name]
