"""The latest decisions about each app, for `fal apps explain`."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

from fal_server.core.autoscale import Load
from fal_server.core.identity import AppId
from fal_server.ports import Clock

MOST_DECISIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision, or a runner's unexpected end, which explains later decisions.

    Value: it never changes.

    Attributes:
        action: start, hold, drain, drop, kill, move or abandon; or end.
        subject: the runner; for start, move and abandon the revision.
        reason: for people.
        load: the app's load at that time.
    """

    at: datetime
    action: str
    subject: str
    reason: str
    load: Load


class Decisions:
    """Keeps the latest decisions about each app.

    Owned: by the controller that decides; a restart loses them, which is harmless.

    Attributes:
        since: the earliest time of the kept decisions.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.since = clock.now()
        self._rings: dict[AppId, deque[Decided]] = {}

    def keep(self, app_id: AppId, action: str, subject: str, reason: str, load: Load) -> None:
        """Keep a decision, and drop the oldest if there are too many."""
        ring = self._rings.get(app_id)
        if ring is None:
            ring = self._rings[app_id] = deque(maxlen=MOST_DECISIONS)
        decided = Decided(at=self._clock.now(), action=action, subject=subject, reason=reason, load=load)
        ring.append(decided)

    def of(self, app_id: AppId) -> Sequence[Decided]:
        """Return the decisions about an app, oldest first."""
        return tuple(self._rings.get(app_id, ()))

    def prune(self, apps: Container[AppId]) -> None:
        """Drop the decisions about all other apps."""
        for app_id in [known for known in self._rings if known not in apps]:
            del self._rings[app_id]
