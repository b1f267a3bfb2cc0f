"""Queued requests in memory: the apps' queues, and the attempts in progress."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fal_server.core.apps import App
from fal_server.core.autoscale import Load
from fal_server.core.fair_queue import FairQueue, QueueEntry
from fal_server.core.identity import AccountId, AppId
from fal_server.core.queue import QueuedRequest, State
from fal_server.ports import Clock


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request that is not completed.

    Owned: by the one controller that works on the request; its row is written first.

    Attributes:
        number: counts requests in the order of their arrival, in which they are served.
        size: of the body in bytes.
        attempt: the attempt in progress, which may be cancelled; None while the request waits.
        starting: whether the start of an attempt is being written; nothing is sent yet, so the request still waits.
        cancelled: whether its caller asked to cancel it.
        on_cancel: tells the runner that has it; None while there is none.
        finishing: whether its end is being written, so that it can no longer be cancelled.
        finished: set when its end is stored.
        revision_id: of the runner of the last attempt; empty before the first.
        cold_start: whether the last attempt waited for its runner to start.
        trace: the caller's traceparent, "" without one; None if no spans of it are exported.
        bytes_in, bytes_out: the size of the request's body, known once a runner gets it, and of its response's.
    """

    request: QueuedRequest
    number: int = 0
    size: int = 0
    attempt: asyncio.Task[object] | None = None
    starting: bool = False
    cancelled: bool = False
    on_cancel: Callable[[], None] | None = None
    finishing: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    revision_id: str = ""
    cold_start: bool = False
    trace: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0

    def cancel(self) -> None:
        """Note that its caller asked to cancel it. Tell the runner that has it."""
        if not self.cancelled:
            self.cancelled = True
            if self.on_cancel is not None:
                self.on_cancel()


@dataclass(slots=True)
class Held:
    """An account's number of live requests, and their bodies' total size.

    Counted: by the backlog.
    """

    requests: int = 0
    size: int = 0


class Backlog:
    """Holds all live requests, in the order in which they are served.

    Owned: each app's queue has one owner, because two would start the same request twice. The store has the rows first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[AppId, FairQueue] = {}
        self._live: dict[str, LiveRequest] = {}
        self._paused: dict[AppId, datetime] = {}
        self._number = 0
        self._on_the_way: Counter[AppId] = Counter()
        self._held: dict[AccountId, Held] = defaultdict(Held)

    def held(self, account: AccountId) -> Held:
        """Return an account's use of the queue."""
        return self._held[account]

    @contextmanager
    def reserved(self, account: AccountId, size: int, requests: int = 1) -> Generator[None]:
        """Count requests, with bodies of this total size, during their storage."""
        held = self._held[account]
        held.requests += requests
        held.size += size
        try:
            yield
        finally:
            held.requests -= requests
            held.size -= size

    def admit(self, live: LiveRequest, size: int) -> None:
        """Count a new request with a body of this size. It is not queued."""
        self._number += 1
        live.number, live.size = self._number, size
        self._live[live.request.request_id] = live
        held = self._held[live.request.account]
        held.requests += 1
        held.size += size

    def add(self, request: QueuedRequest, size: int = 0) -> LiveRequest:
        """Queue a request. It is a new one with a body of this size, or one whose attempt is repeated."""
        live = self._live.get(request.request_id)
        if live is None:
            live = LiveRequest(request)
            self.admit(live, size)
        live.request, live.attempt = request, None
        entry = QueueEntry(
            request_id=request.request_id,
            number=live.number,
            caller=request.caller,
            priority=request.priority,
            created_at=request.created_at,
            not_before=request.not_before,
            start_deadline=request.start_deadline,
        )
        self._lines.setdefault(request.app_id, FairQueue()).add(entry, self._clock.now())
        return live

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(self._live.values())

    def get(self, request_id: str) -> LiveRequest | None:
        """Return a live request, or None."""
        return self._live.get(request_id)

    def of_app(self, app_id: AppId, state: State | None = None) -> Iterable[LiveRequest]:
        """Return the live requests of an app, all or in one state."""
        return [
            live for live in self if live.request.app_id == app_id and (state is None or live.request.state is state)
        ]

    def take(self, app_id: AppId) -> LiveRequest | None:
        """Take the next request of an app off its queue. None if there is none now."""
        line = self._lines.get(app_id)
        now = self._clock.now()
        if line is None or self._paused.get(app_id, now) > now:
            return None
        self._paused.pop(app_id, None)
        entry = line.take(now)
        self._tidy(app_id)
        return None if entry is None else self._live[entry.request_id]

    def pause(self, app_id: AppId, until: datetime) -> None:
        """Take no request of an app before this time. None of its runners can start."""
        self._paused[app_id] = until

    def withdraw(self, live: LiveRequest) -> bool:
        """Remove a request from its queue; return whether it was there."""
        line = self._lines.get(live.request.app_id)
        taken = line is not None and line.remove(live.request.request_id) is not None
        self._tidy(live.request.app_id)
        return taken

    def forget(self, live: LiveRequest) -> None:
        """Drop a completed request."""
        self.withdraw(live)
        if self._live.pop(live.request.request_id, None) is not None:
            held = self._held[live.request.account]
            held.requests -= 1
            held.size -= live.size
        live.finished.set()

    def overdue(self, app_id: AppId) -> list[LiveRequest]:
        """Remove and return an app's queued requests whose start deadline has passed."""
        line = self._lines.get(app_id)
        found = [] if line is None else line.overdue(self._clock.now())
        self._tidy(app_id)
        return [self._live[entry.request_id] for entry in found]

    def waits(self, app_id: AppId) -> bool:
        """Return whether a new request of an app would overtake another one."""
        return app_id in self._lines or app_id in self._on_the_way

    def set_out(self, app_id: AppId) -> None:
        """Count a request on its way to an app's queue or router.

        From then on, no later one overtakes it. Call `arrive` at its end.
        """
        self._on_the_way[app_id] += 1

    def arrive(self, app_id: AppId) -> None:
        """End what `set_out` began."""
        self._on_the_way[app_id] -= 1
        if not self._on_the_way[app_id]:
            del self._on_the_way[app_id]

    @property
    def apps(self) -> list[AppId]:
        """The apps that have queued requests."""
        return list(self._lines)

    def position(self, live: LiveRequest) -> int:
        """Return how many requests are ahead of one. It is 0 if an attempt is in progress."""
        line = self._lines.get(live.request.app_id)
        return 0 if line is None else line.position(live.request.request_id)

    def next_change_at(self) -> datetime | None:
        """Return when the passing of time next changes a queue."""
        times = [at for line in self._lines.values() if (at := line.next_change_at()) is not None]
        return min([*times, *self._paused.values()], default=None)

    @property
    def busy(self) -> bool:
        """Whether any request is queued."""
        return bool(self._lines)

    def load(self, app: App) -> Load:
        """Return the load of an app's queue. The dispatcher counts requests in progress."""
        line = self._lines.get(app.app_id)
        if line is None:
            return Load()
        delay = app.scaling.scaling_delay
        if not delay:  # the usual case, evaluated at every change: do not look at each request
            return Load(queued=len(line), eligible=len(line))
        return Load(queued=len(line), eligible=line.eligible(self._clock.now() - timedelta(seconds=delay)))

    def _tidy(self, app_id: AppId) -> None:
        if app_id in self._lines and not self._lines[app_id]:
            del self._lines[app_id]
            self._paused.pop(app_id, None)
