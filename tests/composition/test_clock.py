"""Steps of the wall clock change no duration by over a tenth. That holds in one run and across restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.composition.clock import PLAUSIBLE, SLEW, ClockKeeper, ClockReading, SteadyClock, open_clock, save_clock

START = PLAUSIBLE.timestamp() + 1e6
HOUR = 3600.0


class Machine:
    """A machine whose wall clock can be set."""

    def __init__(self, wall: float = START) -> None:
        self.uptime, self.step = 100.0, wall - 100.0

    def wall(self) -> float:
        return self.uptime + self.step

    def clock(self, before: ClockReading | None = None, boot: str = "b1") -> SteadyClock:
        return SteadyClock(before, wall=self.wall, uptime=lambda: self.uptime, boot=boot)


def behind(clock: SteadyClock) -> float:
    """Return how many seconds the wall clock is ahead."""
    return (clock.wall() - clock.now()).total_seconds()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(-1e8, 1e8), st.sampled_from(["look", "restart", "do not look"])),
        max_size=30,
    )
)
def test_durations_are_right_within_a_tenth_whatever_the_wall_clock_does(steps) -> None:
    machine = Machine(START + 2e9)
    clock = machine.clock()
    began, elapsed = clock.now(), 0.0
    for seconds, step, then in steps:
        machine.uptime += seconds
        machine.step += step
        elapsed += seconds
        if then == "restart":
            clock = machine.clock(clock.reading())
        if then == "look":
            clock.now()
    counted = (clock.now() - began).total_seconds()
    assert (1 - SLEW) * elapsed - 0.01 <= counted <= (1 + SLEW) * elapsed + 0.01


def test_the_wall_clock_is_caught_up_with() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step += HOUR
    for _ in range(11):
        machine.uptime += HOUR
        clock.now()
    assert abs(behind(clock)) < 0.001


def test_a_clock_that_was_never_set_is_corrected_at_once() -> None:
    machine = Machine(1000.0)
    clock = machine.clock()
    assert clock.now().year == 1970
    machine.step = START
    assert abs(behind(clock)) < 0.001


def test_another_boot_begins_with_the_wall_clock() -> None:
    machine = Machine()
    reading = machine.clock().reading()
    machine.step += 24 * HOUR
    assert abs(behind(machine.clock(reading, boot="b2"))) < 0.001
    assert behind(machine.clock(reading, boot="b1")) > 23 * HOUR


def test_a_reading_is_kept_and_a_damaged_one_ignored(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    clock = open_clock(path)
    save_clock(path, clock)
    assert abs((open_clock(path).now() - clock.now()).total_seconds()) < 5
    path.write_text('{"boot": 1')
    assert abs(behind(open_clock(path))) < 1


async def test_a_restart_does_not_take_back_what_the_time_has_followed(tmp_path: Path) -> None:
    path, machine = tmp_path / "clock.json", Machine()
    clock = machine.clock()
    keeper = ClockKeeper(path, clock)
    first = path.read_text()
    machine.uptime += HOUR
    await keeper.keep()
    assert path.read_text() == first, "written, though the wall clock has not stepped"
    machine.step += HOUR
    machine.uptime += HOUR
    before = clock.now()
    await keeper.keep()
    after = machine.clock(ClockReading(**json.loads(path.read_text()))).now()
    assert abs((after - before).total_seconds()) < 0.001


def lasted(now: Callable[[], datetime], machine: Machine, seconds: float, by: float) -> float:
    """Return a duration's length while the wall clock steps every second. Ten times as long means never."""
    began, passed = now(), 0
    while (now() - began).total_seconds() < seconds and passed < 10 * seconds:
        machine.uptime += 1
        machine.step += by
        passed += 1
    return passed


@pytest.mark.parametrize("seconds", [4, 60, 3600])
@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_the_steps_of_the_system_test_break_a_clock_that_follows_them(by: float, seconds: float) -> None:
    """`tests/clock` would notice a wrong clock: with `time.time` every duration fails."""
    machine = Machine(START + 2e9)
    assert seconds * (1 - SLEW) <= lasted(machine.clock().now, machine, seconds, by) <= seconds / (1 - SLEW) + 1
    naive = lasted(machine.clock().wall, machine, seconds, by)
    assert naive < max(seconds * (1 - SLEW), 2) if by > 0 else naive == 10 * seconds
