"""Decides how many runners an app should have, and explains it."""

from __future__ import annotations

from dataclasses import dataclass

from fal_server.core.counting import counted
from fal_server.core.scaling import Scaling

# A runner that never got a request stops after this many seconds, unless a minimum or buffer keeps it.
NEVER_USED_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """An app's current requests.

    Attributes:
        in_flight: requests on runners.
        queued: requests that wait for a runner.
        eligible: queued requests that have waited at least `scaling_delay` and so may cause a start.
    """

    in_flight: int = 0
    queued: int = 0
    eligible: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The desired number of runners.

    Attributes:
        start_below: runners are started up to this number. Counts eligible requests only.
        keep: idle runners above this number may stop. Counts every request, so keep >= start_below.
        reason: the arithmetic, for people.
    """

    start_below: int
    keep: int
    reason: str


def decide(scaling: Scaling, load: Load) -> Decision:
    """Compute an app's desired number of runners.

        needed = ceil(volume / max_multiplexing)
        buffer = max(concurrency_buffer, ceil(needed * concurrency_buffer_perc / 100))
        target = min(max_concurrency, max(min_concurrency, needed + buffer))

    All are whole numbers, so that rounded averages cannot make the number of runners flap.
    """
    start_below, reason = _target(scaling, load.in_flight + load.eligible)
    keep, _ = _target(scaling, load.in_flight + load.queued)
    waiting = load.queued - load.eligible
    delayed = f"; {waiting} more wait out scaling_delay {scaling.scaling_delay} s" if waiting else ""
    return Decision(start_below=start_below, keep=max(keep, start_below), reason=reason + delayed)


def _target(scaling: Scaling, volume: int) -> tuple[int, str]:
    needed = _ceil_div(volume, scaling.max_multiplexing)
    buffer = max(scaling.concurrency_buffer, _ceil_div(needed * scaling.concurrency_buffer_perc, 100))
    target = min(scaling.max_concurrency, max(scaling.min_concurrency, needed + buffer))
    reason = (
        f"{counted(volume, 'request')} / {scaling.max_multiplexing} at once = {counted(needed, 'runner')}, "
        f"buffer {buffer}, min {scaling.min_concurrency}, max {scaling.max_concurrency}: {target}"
    )
    return target, reason


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
