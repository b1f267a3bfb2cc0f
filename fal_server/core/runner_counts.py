"""How many runners an app had in each state, minute by minute. The stored rows tell that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from fal_server.core.runners import Runner

_MINUTE = timedelta(minutes=1)


class Aggregation(StrEnum):
    """How counts of an interval are aggregated: maximum or mean."""

    MAX = "max"
    AVG = "avg"


class Phase(StrEnum):
    """The phase of a runner's life in which it is counted."""

    PENDING = "pending"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A phase of a runner, from one time to before another."""

    phase: Phase
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCounts:
    """The number of runners by state. Ready ones run requests or are idle."""

    running: float = 0.0
    idle: float = 0.0
    pending: float = 0.0
    draining: float = 0.0


def stays_of(runner: Runner, until: datetime) -> list[Stay]:
    """Return the phases of a runner before a time.

    An ending runner is draining from the time it was asked to finish or stop until its end.
    """
    end = min(runner.ended_at or until, until)
    leaving = min((at for at in (runner.draining_at, runner.stopping_at) if at is not None), default=end)
    places = (runner.created_at, runner.ready_at or leaving, leaving, end)
    bounded = [min(max(at, runner.created_at), end) for at in places]
    return [
        Stay(phase=phase, begin=begin, end=max(begin, after))
        for phase, (begin, after) in zip(Phase, pairwise(bounded), strict=True)
        if begin < after
    ]


def counts_by_minute(
    stays: Sequence[Stay], busy: Mapping[datetime, float], since: datetime, until: datetime, aggregation: Aggregation
) -> list[RunnerCounts]:
    """Return the counts of each minute of a span.

    The duration of a request is known in the minute of its end. The part that exceeds the runners of that minute
    belongs to earlier minutes.

    Args:
        busy: by minute, the total seconds of the requests that ended in it.
        since: when the first minute begins.
    """
    length = math.ceil((until - since) / _MINUTE)
    levels = {phase: _levels([s for s in stays if s.phase is phase], since, length, aggregation) for phase in Phase}
    ready, running, carried = levels[Phase.READY], [0.0] * length, 0.0
    later = sum(seconds for at, seconds in busy.items() if at >= since + length * _MINUTE)
    for number in reversed(range(length)):
        carried += busy.get(since + number * _MINUTE, 0.0) / 60 + (later / 60 if number == length - 1 else 0.0)
        taken = min(ready[number], carried)
        carried -= taken
        running[number] = min(ready[number], math.ceil(taken - 1e-9)) if aggregation is Aggregation.MAX else taken
    return [
        RunnerCounts(
            running=running[number],
            idle=ready[number] - running[number],
            pending=levels[Phase.PENDING][number],
            draining=levels[Phase.DRAINING][number],
        )
        for number in range(length)
    ]


def together(minutes: Sequence[RunnerCounts], aggregation: Aggregation) -> RunnerCounts:
    """Return the counts of an interval from those of its minutes."""

    def one(values: Sequence[float]) -> float:
        return max(values) if aggregation is Aggregation.MAX else round(sum(values) / len(values), 4)

    return RunnerCounts(
        running=one([minute.running for minute in minutes]),
        idle=one([minute.idle for minute in minutes]),
        pending=one([minute.pending for minute in minutes]),
        draining=one([minute.draining for minute in minutes]),
    )


def _levels(stays: Sequence[Stay], since: datetime, length: int, aggregation: Aggregation) -> list[float]:
    """Return for each minute the maximum or mean number of stays."""
    changes = sorted([*((stay.begin, 1) for stay in stays), *((stay.end, -1) for stay in stays)])
    levels, count, at = [0.0] * length, 0, since
    for time, change in [*changes, (since + length * _MINUTE, 0)]:
        if time > at and count:
            _fill(levels, count, at - since, min(time - since, length * _MINUTE), aggregation)
        at = max(at, time)
        count += change
    return levels


def _fill(levels: list[float], count: int, begin: timedelta, end: timedelta, aggregation: Aggregation) -> None:
    for number in range(begin // _MINUTE, min(len(levels), math.ceil(end / _MINUTE))):
        overlap = min(end, (number + 1) * _MINUTE) - max(begin, number * _MINUTE)
        if overlap > timedelta():
            levels[number] = (
                max(levels[number], count)
                if aggregation is Aggregation.MAX
                else levels[number] + count * (overlap / _MINUTE)
            )
