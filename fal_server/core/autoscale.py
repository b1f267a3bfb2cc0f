"""How many runners an app should have: the formula, with the reason for its answer."""

from __future__ import annotations

from dataclasses import dataclass

from fal_server.core.scaling import Scaling

# A runner that no request ever reached, in an app without floor, goes after this many seconds.
NEVER_USED_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an app has to do at one moment.

    Attributes:
        in_flight: requests that runners are working on.
        queued: requests that wait for a runner.
        ripe: of those, the ones that have waited at least `scaling_delay` and so may cause a start.
    """

    in_flight: int = 0
    queued: int = 0
    eligible: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many runners there should be.

    Attributes:
        start_below: fewer than this: start some. Counts ripe requests only.
        keep: more than this: those whose keep_alive is over may go. Counts every request, so keep >= start_below.
        reason: the arithmetic, in words.
    """

    start_below: int
    keep: int
    reason: str


def decide(scaling: Scaling, load: Load) -> Decision:
    """Apply the formula to one app.

        needed = ceil(volume / max_multiplexing)
        buffer = max(concurrency_buffer, ceil(needed * concurrency_buffer_perc / 100))
        target = min(max_concurrency, max(min_concurrency, needed + buffer))

    Whole numbers only, so that no rounding of averages can make it flap.
    """
    start_below, words = _target(scaling, load.in_flight + load.eligible)
    keep, _ = _target(scaling, load.in_flight + load.queued)
    waiting = load.queued - load.eligible
    delayed = f"; {waiting} more wait out scaling_delay {scaling.scaling_delay} s" if waiting else ""
    return Decision(start_below=start_below, keep=max(keep, start_below), reason=words + delayed)


def _target(scaling: Scaling, volume: int) -> tuple[int, str]:
    needed = _ceil_div(volume, scaling.max_multiplexing)
    buffer = max(scaling.concurrency_buffer, _ceil_div(needed * scaling.concurrency_buffer_perc, 100))
    target = min(scaling.max_concurrency, max(scaling.min_concurrency, needed + buffer))
    words = (
        f"{volume} requests / {scaling.max_multiplexing} at once = {needed} runners, buffer {buffer}, "
        f"min {scaling.min_concurrency}, max {scaling.max_concurrency}: {target}"
    )
    return target, words


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
