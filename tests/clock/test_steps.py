"""Steps of the wall clock neither shorten nor extend a duration. They go hours in both directions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from fal_server.composition.clock import SLEW
from tests.clock.trials import ARRANGED, SETTINGS, Setting, Site, Trial
from tests.support.controller import PROGRAM, ROOT, start
from tests.support.left_behind import kill_everything
from tests.support.moved_clock import MovedClock

HOUR = 3600.0
# The time of a call: the duration may start before the trial sees it.
_LATE_SECONDS = 0.5
# A controller that wrongly uses the wall clock.
_FOLLOWS = "import runpy, fal_server.composition.clock as c; c.SteadyClock.now = c.SteadyClock.wall; "
NAIVE = ("-c", f"{_FOLLOWS}runpy.run_module('fal_server', run_name='__main__', alter_sys=True)")
R = TypeVar("R")
PAGE = ROOT / "docs" / "explanation" / "durations.md"


@contextmanager
def stepping(clock: MovedClock, by: float) -> Generator[None]:
    """Step the clock every second, so that each duration contains steps."""
    over = threading.Event()

    def work() -> None:
        steps = 0
        while not over.is_set():
            steps += 1
            clock.step(steps * by)
            over.wait(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def sites(folder: Path, clock: MovedClock, program: Sequence[str]) -> Generator[Site]:
    """Run a controller with a moved clock."""
    folder.mkdir()
    site = Site(folder, start(folder / "state", environment=clock.environment, program=program))
    try:
        yield site
    finally:
        site.sdk.close()
        site.controller.process.kill()
        site.controller.process.wait()
        kill_everything(folder / "state")
        clock.clean()


def each(pool: ThreadPoolExecutor, site: Site, act: Callable[[Trial], R], trials: Iterable[Trial]) -> list[R]:
    """Run a function on all trials at once. If one fails, end the others, and raise its error."""
    acting = [pool.submit(act, trial) for trial in trials]
    for done in as_completed(acting):
        if (error := done.exception()) is not None:
            site.give_up()
            raise error
    return [done.result() for done in acting]


def lasted(
    folder: Path,
    by: float,
    settings: tuple[Setting, ...],
    *,
    restart: bool,
    program: Sequence[str] = PROGRAM,
) -> dict[str, float]:
    """Return how many seconds each duration lasted while the clock stepped."""
    folder.mkdir()
    clock = MovedClock(folder)
    with sites(folder / "site", clock, program) as site, ThreadPoolExecutor(len(settings)) as pool:
        trials = [setting.trial(site) for setting in settings]
        assert set(each(pool, site, next, trials)) == {ARRANGED}
        if restart:
            began = dict[int, float]()
            for starts in (True, False):  # so that durations that start at once are not over yet
                some = [number for number, setting in enumerate(settings) if setting.starts is starts]
                began |= zip(some, each(pool, site, next, [trials[number] for number in some]), strict=True)
            began = [began[number] for number in range(len(settings))]
            site.controller.process.kill()
            site.controller.process.wait()
            ended_at = time.monotonic()
            within = sum(start + s.seconds > ended_at for s, start in zip(settings, began, strict=True))
            print(f"{within} of {len(settings)} durations had not passed when the controller was killed")
            clock.step(by)
            port = ("--port", str(site.controller.port))
            site.controller = start(site.controller.state_dir, *port, environment=clock.environment, program=program)
            over = each(pool, site, next, trials)
        else:
            with stepping(clock, by):
                began, over = zip(*each(pool, site, lambda trial: (next(trial), next(trial)), trials), strict=True)
        for trial in trials:
            assert next(trial, None) is None
    return {setting.name: end - start for setting, start, end in zip(settings, began, over, strict=True)}


@pytest.mark.parametrize("restart", [False, True], ids=["while it runs", "between two runs"])
def test_no_step_moves_a_duration(tmp_path: Path, *, restart: bool) -> None:
    settings = tuple(setting for setting in SETTINGS if setting.lasts or not restart)
    started_at = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        ways = [pool.submit(lasted, tmp_path / f"{by:+g}", by, settings, restart=restart) for by in (HOUR, -HOUR)]
        found = [way.result() for way in ways]
    print(f"{time.monotonic() - started_at:.0f} s")
    for setting in settings:
        ahead, back = (times[setting.name] for times in found)
        print(f"{setting.name:48}{setting.seconds:4g} s: {ahead:6.1f} s with steps ahead, {back:6.1f} s back")
    early = [name for times in found for name in too_early(settings, times)]
    assert not early, f"over too early: {early}"


def too_early(settings: tuple[Setting, ...], times: Mapping[str, float]) -> list[str]:
    """Return the settings whose durations were too short."""
    least = {setting.name: setting.seconds * (1 - SLEW) - _LATE_SECONDS for setting in settings}
    return [name for name, seconds in times.items() if seconds < least[name]]


def test_a_clock_that_follows_the_wall_clock_is_found_out(tmp_path: Path) -> None:
    settings = tuple(setting for setting in SETTINGS if setting.name in {"`keep_alive`", "`scaling_delay`"})
    times = lasted(tmp_path / "naive", HOUR, settings, restart=False, program=NAIVE)
    assert too_early(settings, times) == [setting.name for setting in settings]


def row(setting: Setting) -> str:
    """Return the setting's row on the page."""
    between = "in time" if setting.lasts else "does not outlive it"
    return f"| {setting.name} | {setting.seconds:g} s | in time | {between} |"


def test_the_page_has_what_is_tried() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert rows[2:] == [row(setting) for setting in SETTINGS]
