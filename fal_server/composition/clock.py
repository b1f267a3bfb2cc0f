"""The controller's clock. It measures durations by the time since boot, and follows the wall clock without steps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fal_runner.process.proc import boot_id
from fal_server.aio.rounds import every
from fal_server.composition.state import write_private

# A wall clock before this was never set; its first correction is applied at once.
PLAUSIBLE = datetime(2026, 1, 1, tzinfo=UTC)
_PLAUSIBLE_AT = PLAUSIBLE.timestamp()
_since_boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
# How fast the time follows a stepped wall clock. Durations are accurate to this share meanwhile.
SLEW = 0.1
# A restart loses the correction since the last reading: at most a tenth of this.
KEPT_EVERY_SECONDS = 30.0
_WORTH_KEEPING_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """The state that one run leaves for the next.

    Attributes:
        boot: the id of the boot that `uptime` refers to.
        uptime: seconds since the boot, including suspended ones.
        at: the controller's time then, in seconds since 1970.
    """

    boot: str
    uptime: float
    at: float


class SteadyClock:
    """A clock that a step of the wall clock moves only slightly. It moves by no more than a tenth of the elapsed time.

    When a machine is suspended or meets its time server, the wall clock steps by seconds to hours. If durations
    followed, runners would end as idle, starts would fail as too slow, and pauses would last for hours.

    Args:
        before: the last reading of an earlier run; in the same boot the time continues from there.
        wall: the wall clock, in seconds since 1970.
        uptime: seconds since the boot.
        boot: the id of this boot.
    """

    def __init__(
        self,
        before: ClockReading | None = None,
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = _since_boot,
        boot: str = "",
    ) -> None:
        self._wall = wall
        self._uptime = uptime
        self._boot = boot
        self._last = uptime()
        goes_on = before is not None and before.boot == boot and before.uptime <= self._last
        self._at = before.at + self._last - before.uptime if before is not None and goes_on else wall()

    def now(self) -> datetime:
        uptime, wall = self._uptime(), self._wall()
        passed = uptime - self._last
        if passed > 0.0:
            self._last = uptime
        else:
            passed = 0.0
        drift = wall - self._at - passed
        most = SLEW * passed
        if self._at < _PLAUSIBLE_AT <= wall:
            self._at = wall
        else:
            self._at += passed + (drift if -most <= drift <= most else most if drift > 0 else -most)
        return datetime.fromtimestamp(self._at, UTC)

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def reading(self) -> ClockReading:
        """Return the state for the next run."""
        at = self.now().timestamp()
        return ClockReading(boot=self._boot, uptime=self._last, at=at)


def open_clock(path: Path) -> SteadyClock:
    """Return a clock that continues from a file's reading. A damaged file is ignored."""
    try:
        before = ClockReading(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        before = None
    return SteadyClock(before, boot=boot_id())


def save_clock(path: Path, clock: SteadyClock) -> None:
    """Store the reading for the next run.

    Raises:
        Unavailable: the disk does not accept it.
    """
    reading = clock.reading()
    write_private(path, json.dumps({"boot": reading.boot, "uptime": reading.uptime, "at": reading.at}) + "\n")


class ClockKeeper:
    """Stores the reading of a clock that follows a step. So a restart does not turn the time back.

    Args:
        path: of the reading, which is written now.

    Raises:
        Unavailable: the disk does not accept it.
    """

    def __init__(self, path: Path, clock: SteadyClock) -> None:
        self._path = path
        self._clock = clock
        self._kept = clock.reading()
        save_clock(path, clock)

    async def run(self, stopping: asyncio.Event) -> None:
        """Store it repeatedly until `stopping` is set."""
        await every("keeping the clock's reading", KEPT_EVERY_SECONDS, self.keep).run_until(stopping)

    async def keep(self) -> None:
        """Write the reading if the next run would otherwise be wrong.

        Raises:
            Unavailable: the disk does not accept it.
        """
        reading = self._clock.reading()
        counted_on = self._kept.at + reading.uptime - self._kept.uptime
        if abs(reading.at - counted_on) >= _WORTH_KEEPING_SECONDS:
            await asyncio.to_thread(save_clock, self._path, self._clock)
            self._kept = reading
