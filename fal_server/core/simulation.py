"""Plays a trace of requests through the controller's own rules. These are plan, step and choose.

The simulated nodes have unlimited room. Each start takes the same time and succeeds, unless that time is longer than
`startup_timeout`. Runners stop as soon as they have nothing to do. There are three kinds of events: a request arrives,
a runner becomes ready, a request ends.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from fal_server.core import autoscale
from fal_server.core.actions import Action, Create, Drain, Kill
from fal_server.core.apps import App, AuthMode
from fal_server.core.autoscale import Load
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Event, Observation, step
from fal_server.core.reconcile import AppInput, Usage, plan
from fal_server.core.routing import OpenSlots, Slot
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.core.scaling import Scaling

MOST_ARRIVALS = 20_000
MOST_POINTS = 400
# After this many consecutive starts that were too slow, all others would be too slow as well.
MOST_FAILURES = 20
# How often the controller plans while requests arrive and end (the reconciler's BUSY_SECONDS).
TICK_SECONDS = 0.5
# Limits of work, counted in examined runners: in total, and between two pauses that let other tasks run.
MOST_LOOKS = 20_000_000
_LOOKS_A_SLICE = 20_000
_LOOKS_A_PLAN = 10
_START = datetime(2000, 1, 1, tzinfo=UTC)
_HERE = "simulated"
_NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request: its arrival, and its duration on a runner, in seconds."""

    at: float
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The maxima since the previous point.

    Attributes:
        at: seconds since the start.
        runners: how many have a process.
        ready: how many take requests.
    """

    at: float
    runners: int
    ready: int
    in_flight: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """The fleet's performance on the trace.

    Attributes:
        points: evenly spaced in time.
        started: how many runners were started.
        runner_seconds: the sum of all runners' lifetimes.
        waits: the waiting time of each served request, in seconds, sorted.
        unserved: requests that no runner took.
    """

    points: tuple[Point, ...]
    started: int
    most_runners: int
    runner_seconds: float
    waits: tuple[float, ...]
    unserved: int

    def wait_of(self, percent: int) -> float:
        """Return a percentile of the waiting times, in seconds. It is 0 if no request was served."""
        if not self.waits:
            return 0.0
        return self.waits[max(0, -(-len(self.waits) * percent // 100) - 1)]


@dataclass(slots=True, eq=False)
class _SimulatedRunner:
    runner: Runner
    slot: Slot
    last_request_at: datetime | None = None


def simulate(
    scaling: Scaling, arrivals: Sequence[Arrival], start_seconds: float
) -> Generator[None, None, SimulationResult]:
    """Play a trace. It yields from time to time, so that other work can run in between.

    Args:
        scaling: the settings to try.
        arrivals: the requests, in any order.
        start_seconds: from the order for a runner until it takes requests.

    Raises:
        InvalidArgument: there is no arrival or too many, a number is negative or not finite, or it would take too long.
    """
    if not 0 < len(arrivals) <= MOST_ARRIVALS:
        raise InvalidArgument("arrivals", f"arrivals holds {len(arrivals)}: give 1 to {MOST_ARRIVALS}")
    for arrival in arrivals:
        if not (0 <= arrival.at <= 1e8 and 0 <= arrival.duration <= 1e8):
            message = f"an arrival at {arrival.at:g} s for {arrival.duration:g} s: both must lie between 0 and 1e8"
            raise InvalidArgument("arrivals", message)
    if not 0 <= start_seconds <= 1e6:
        raise InvalidArgument("start_seconds", f"start_seconds is {start_seconds:g}: it must lie between 0 and 1e6")
    return (yield from _Simulation(scaling, arrivals, start_seconds).run())


class _Simulation:
    def __init__(self, scaling: Scaling, arrivals: Sequence[Arrival], start_seconds: float) -> None:
        self._scaling = scaling
        self._start_seconds = start_seconds
        self._number = count()
        # (when, tie-breaker, what)
        self._events: list[tuple[float, int, Arrival | _SimulatedRunner | tuple[_SimulatedRunner, bool]]] = []
        for arrival in arrivals:
            self._later(arrival.at, arrival)
        self._live: dict[str, _SimulatedRunner] = {}
        self._places = OpenSlots()
        self._waiting: deque[tuple[float, Arrival]] = deque()
        self._app = App(
            account=LOCAL,
            name="a",
            environment="main",
            revision_id="r",
            auth_mode=AuthMode.PRIVATE,
            scaling=scaling,
            created_at=_START,
            updated_at=_START,
        )
        self._now = 0.0
        self._moved_at: float | None = None  # when the first request since the last plan arrived or ended
        self._failures = 0
        self._failed_at = 0.0
        self._started = 0
        self._unserved = 0
        self._runner_seconds = 0.0
        self._looks = 0
        self._waits: list[float] = []
        self._seen: list[tuple[float, int, int, int, int]] = []

    def run(self) -> Generator[None, None, SimulationResult]:
        self._plan()
        self._sample()
        paused_at = 0
        while self._failures < MOST_FAILURES:
            tick = self._tick_at()
            due = min(tick, self._events[0][0] if self._events else _NEVER)
            if due == _NEVER:
                break
            self._now = due
            urgent = due == tick
            while self._events and self._events[0][0] <= due:
                urgent = self._happen(heapq.heappop(self._events)[2]) or urgent
            self._give_up_waiting()
            self._route()
            if urgent:
                self._plan()
            self._sample()
            if self._looks - paused_at > _LOOKS_A_SLICE:
                paused_at = self._looks
                if self._looks > MOST_LOOKS:
                    message = "this takes too long to simulate: give fewer arrivals, or a lower max_concurrency"
                    raise InvalidArgument("arrivals", message)
                yield
        return self._result()

    # Events

    def _happen(self, what: Arrival | _SimulatedRunner | tuple[_SimulatedRunner, bool]) -> bool:
        """Apply an event; return whether the controller then plans at once."""
        if isinstance(what, Arrival):
            self._waiting.append((self._now, what))
            self._route()
            return bool(self._waiting)
        if isinstance(what, _SimulatedRunner):
            if what.runner.runner_id in self._live and what.runner.state is RunnerState.SETUP:
                self._see(what, Event.READY)
                what.slot.open = True
                self._places.add(what.slot)
                self._failures = 0
            return True
        live, timed_out = what
        live.slot.give_back()
        live.last_request_at = self._time()
        self._moved_at = self._now if self._moved_at is None else self._moved_at
        if timed_out or (not live.slot.open and not live.slot.in_flight):
            self._end(live)
            return True
        return False

    def _route(self) -> None:
        while self._waiting:
            self._looks += 1
            slot = self._places.choose(self._scaling.max_multiplexing)
            if slot is None:
                return
            came, arrival = self._waiting.popleft()
            slot.take()
            self._moved_at = self._now if self._moved_at is None else self._moved_at
            self._waits.append(self._now - came)
            timed_out = arrival.duration > self._scaling.request_timeout
            end = self._now + min(arrival.duration, self._scaling.request_timeout)
            self._later(end, (self._live[slot.runner_id], timed_out))

    def _give_up_waiting(self) -> None:
        limit = self._scaling.request_start_timeout
        while self._waiting and (
            self._scaling.max_concurrency == 0 or (limit is not None and self._now - self._waiting[0][0] >= limit)
        ):
            self._waiting.popleft()
            self._unserved += 1

    # The controller

    def _plan(self) -> None:
        """Plan and apply until no action is due."""
        self._moved_at = None
        while True:
            self._looks += _LOOKS_A_PLAN * (1 + len(self._live))
            runners = [live.runner for live in self._live.values()]
            usage = {
                i: Usage(in_flight=live.slot.in_flight, last_request_at=live.last_request_at)
                for i, live in self._live.items()
            }
            given = AppInput(
                app=self._app,
                load=self._load(),
                failures=self._failures,
                failed_at=self._time(self._failed_at),
            )
            actions = plan([given], runners, usage, [], self._time())
            done = [self._apply(action) for action in actions]
            if not any(done):
                return
            self._route()

    def _apply(self, action: Action) -> bool:
        """Apply an action. Return False if it has no effect on a simulated fleet."""
        match action:
            case Create():
                due = self._now
                if action.not_before is not None:
                    due = max(due, (action.not_before - _START).total_seconds())
                self._create(due)
            case Drain(runner_id=runner_id, reason=reason):
                live = self._live[runner_id]
                self._close(live)
                live.runner = replace(live.runner, desired=Desired.DRAIN, reason=reason, unrouted_at=self._time())
                if not live.slot.in_flight:
                    self._end(live)
            case Kill(runner_id=runner_id):
                self._failures += 1
                self._failed_at = self._now
                self._end(self._live[runner_id])
            case _:
                return False
        return True

    def _create(self, due: float) -> None:
        """Add a runner that starts at `due`. Until then it waits because a start has failed."""
        self._started += 1
        runner_id = f"{self._started:06}"
        started_at = self._time(due)
        runner = Runner(
            account=LOCAL,
            runner_id=runner_id,
            app_name="a",
            environment="main",
            revision_id="r",
            machine_type=self._scaling.machine_types[0],
            token="",
            created_at=self._time(),
            state=RunnerState.SETUP,
            started_at=started_at,
            node=_HERE,
        )
        live = _SimulatedRunner(runner=runner, slot=Slot(runner_id=runner_id, host=_HERE, port=1, open=False))
        self._live[runner_id] = live
        self._later(due + self._start_seconds, live)

    def _see(self, live: _SimulatedRunner, event: Event) -> None:
        seen = Observation(runner_id=live.runner.runner_id, event=event, port=1)
        live.runner = step(live.runner, seen, self._time())

    def _close(self, live: _SimulatedRunner) -> None:
        if live.slot.open:
            live.slot.open = False
            self._places.remove(live.slot)

    def _end(self, live: _SimulatedRunner) -> None:
        self._close(live)
        self._live.pop(live.runner.runner_id, None)
        started_at = live.runner.started_at
        if started_at is not None:
            self._runner_seconds += max(0.0, (self._time() - started_at).total_seconds())

    # The next time to plan

    def _tick_at(self) -> float:
        """Return when time alone may change something. It is half a second after a change, or a delay's end."""
        scaling = self._scaling
        times: list[float] = []
        if self._moved_at is not None:
            times.append(self._moved_at + TICK_SECONDS)
        for came, _ in self._waiting:
            times.append(came + scaling.scaling_delay)
            if scaling.request_start_timeout is not None:
                times.append(came + scaling.request_start_timeout)
            if came + scaling.scaling_delay > self._now:
                break  # later ones arrived after that
        self._looks += len(self._live)
        floor = scaling.min_concurrency or scaling.concurrency_buffer
        for live in self._live.values():
            runner = live.runner
            if runner.state is RunnerState.IDLE and runner.ready_at is not None and not live.slot.in_flight:
                used = live.last_request_at is not None
                since = live.last_request_at or runner.ready_at
                patience = scaling.keep_alive if used or floor else autoscale.NEVER_USED_SECONDS
                times.append((since - _START).total_seconds() + patience)
            elif runner.state is RunnerState.SETUP and runner.started_at is not None:
                times.append((runner.started_at - _START).total_seconds() + scaling.startup_timeout)
        # Datetimes are exact to the microsecond, so something may be due slightly later than its float says.
        return min((m + 2e-6 for m in times if m + 2e-6 > self._now), default=_NEVER)

    def _load(self) -> Load:
        eligible_before = self._now - self._scaling.scaling_delay
        return Load(
            in_flight=self._places.in_flight,
            queued=len(self._waiting),
            eligible=sum(came <= eligible_before for came, _ in self._waiting),
        )

    # The result

    def _sample(self) -> None:
        running = [live for live in self._live.values() if live.runner.started_at is not None]
        running = [live for live in running if live.runner.started_at <= self._time()]  # type: ignore[operator]
        self._seen.append(
            (
                self._now,
                len(running),
                sum(live.slot.open for live in running),
                sum(live.slot.in_flight for live in running),
                len(self._waiting),
            )
        )

    def _result(self) -> SimulationResult:
        end = self._time()
        for live in self._live.values():
            if live.runner.started_at is not None:
                self._runner_seconds += max(0.0, (end - live.runner.started_at).total_seconds())
        return SimulationResult(
            points=tuple(_resampled(self._seen)),
            started=self._started,
            most_runners=max(seen[1] for seen in self._seen),
            runner_seconds=self._runner_seconds,
            waits=tuple(sorted(self._waits)),
            unserved=self._unserved + len(self._waiting),
        )

    def _later(self, when: float, what: Arrival | _SimulatedRunner | tuple[_SimulatedRunner, bool]) -> None:
        heapq.heappush(self._events, (when, next(self._number), what))

    def _time(self, seconds: float | None = None) -> datetime:
        return _START + timedelta(seconds=self._now if seconds is None else seconds)


def _resampled(seen: Sequence[tuple[float, int, int, int, int]]) -> Iterable[Point]:
    """Return evenly spaced points, each with the maxima since the previous one."""
    end = seen[-1][0]
    if end <= 0:
        yield Point(at=0, runners=seen[-1][1], ready=seen[-1][2], in_flight=seen[-1][3], queued=seen[-1][4])
        return
    place = 0
    last = seen[0][1:]
    for number in range(MOST_POINTS + 1):
        at = end * number / MOST_POINTS
        most = last
        while place < len(seen) and (seen[place][0] <= at or number == MOST_POINTS):
            last = seen[place][1:]
            most = (max(most[0], last[0]), max(most[1], last[1]), max(most[2], last[2]), max(most[3], last[3]))
            place += 1
        yield Point(at=at, runners=most[0], ready=most[1], in_flight=most[2], queued=most[3])
