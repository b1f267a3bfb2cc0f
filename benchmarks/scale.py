"""Measure 500 apps and 2,000 runners on a simulated engine. Everything above it is real.

The store is a SQLite file, and the clock is simulated. The table has the CPU time of a round of the reconciler, and the
memory over an hour in which runners are stopped, scaled, used and replaced.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil

from fal_server.composition.gc_tuning import freeze_startup_objects
from fal_server.core.apps import App
from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE, app_id, make_app, make_revision, make_runner
from tests.fakes.platform import KEY, SPEC, Platform

APPS = 500
RUNNERS = 2_000
ROUNDS = 40
MOST_MILLISECONDS = 50.0
# An hour in steps of some seconds; each step changes some apps.
HOUR_SECONDS, STEP_SECONDS, CHANGES = 3600, 30, 16
MOST_GROWTH = 1.10
RETENTION = timedelta(minutes=5)
# After this long without a change the platform counts as stable.
QUIET_SECONDS = 0.03


async def filled(platform: Platform, apps: int, runners: int) -> None:
    """Deploy the apps, with ready runners."""
    each = runners // apps

    def made(number: int) -> App:
        name = f"app-{number:03}"
        return make_app(name, f"rev-{number:03}", min_concurrency=each, max_concurrency=each + 4, keep_alive=60)

    await platform.builder.build(SPEC, force=False, log=_silent)
    for number in range(apps):
        app = made(number)
        revision = replace(make_revision(app.revision_id, app.name), environments=(SPEC,), scaling=app.scaling)
        await platform.catalog.register(revision, partial(_same, app))
    born = [
        make_runner(
            f"runner-{number:04}",
            RunnerState.IDLE,
            app_name=f"app-{number % apps:03}",
            revision_id=f"rev-{number % apps:03}",
            port=10_000 + number,
        )
        for number in range(runners)
    ]
    # All rows in one transaction, like rows of an earlier controller: 2,000 single starts would measure the disk.
    await platform.fleet.add(born)
    for runner in born:
        platform.engine.alive[runner.runner_id] = await platform.launch_specs.of(runner)
    await settled(platform)


async def settled(platform: Platform) -> None:
    """Plan and wait until nothing changes any more."""
    while True:
        seen = platform.changed.count
        await platform.reconciler.tick()
        if await platform.changed.wait(seen, QUIET_SECONDS) == seen:
            return
        before = -1
        while platform.changed.count != before:
            before = platform.changed.count
            await asyncio.sleep(QUIET_SECONDS)  # waits for a time without changes


async def ticks(platform: Platform, rounds: int) -> list[float]:
    """Return the CPU time of each round, in milliseconds."""
    found: list[float] = []
    for _ in range(rounds):
        started = time.process_time()
        await platform.reconciler.tick()
        found.append((time.process_time() - started) * 1000)
    return found


async def churn(platform: Platform, chance: random.Random, store: SqlStore) -> None:
    """Simulate one step. Requests come and go, runners stop, apps scale, and time passes."""
    names = [app.name for app in platform.catalog.apps]
    for number in range(CHANGES):
        name = chance.choice(names)
        match number % 4:
            case 0:
                least = chance.randint(RUNNERS // APPS - 1, RUNNERS // APPS + 1)
                await platform.apps.update(SCOPE, name, "", {"min_concurrency": least})
            case 1:
                for runner in list(platform.fleet.of_app(app_id(name)))[:1]:
                    await platform.fleet.drain(runner.runner_id, "stopped by request")
            case _:
                lease = platform.dispatcher.try_acquire(app_id(name), request_id="q", caller=None, hint=None)
                if lease is not None:
                    platform.dispatcher.answered(lease, "warm")
                    platform.dispatcher.release(lease, Outcome.DONE)
    platform.clock.advance(STEP_SECONDS)
    await settled(platform)
    await store.forget_runners(platform.clock.now() - RETENTION)
    await store.logs.forget(platform.clock.now() - RETENTION)
    for kept in (platform.engine.launched, platform.engine.stopped, platform.engine.released):
        kept.clear()  # the simulated engine's records


async def measured(directory: Path) -> tuple[list[float], list[float], list[float], int]:
    """Return ticks in milliseconds, megabytes over the hour, and the starts' number. Ticks are at rest and in churn."""
    store = await open_store(directory / "scale.db", AesVault(KEY))
    platform = Platform(store, directory)
    watch = asyncio.create_task(platform.reconciler.watch())
    chance = random.Random(1)
    process = psutil.Process()
    started = 0
    try:
        await filled(platform, APPS, RUNNERS)
        assert len(platform.fleet.runners) == RUNNERS, len(platform.fleet.runners)
        freeze_startup_objects()  # as the controller does after loading its state
        rest = await ticks(platform, ROUNDS)
        busy: list[float] = []
        megabytes: list[float] = []
        for step in range(HOUR_SECONDS // STEP_SECONDS):
            before = {runner.runner_id for runner in platform.fleet.runners}
            await churn(platform, chance, store)
            started += len({runner.runner_id for runner in platform.fleet.runners} - before)
            busy += await ticks(platform, 1)
            if step % 10 == 9:
                gc.collect()
                megabytes.append(process.memory_info().rss / 1e6)
        return rest, busy, megabytes, started
    finally:
        await platform.reconciler.close()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await platform.dispatcher.close()
        await store.close()


def _same(app: App, _before: App | None) -> App:
    """Deploy an app again, unchanged."""
    return app


async def _silent(entry: object) -> None:
    """Discard the output of a simulated build."""


def main() -> None:
    """Print the figures."""
    memory = Path("/dev/shm")  # leaves out the cost of durable writes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        rest, busy, megabytes, started = asyncio.run(measured(Path(directory)))
    for name, found in (("at rest", rest), ("in churn", busy)):
        median, most = statistics.median(found), max(found)
        outcome = "ok" if most < MOST_MILLISECONDS else "TOO SLOW"
        print(
            f"reconciler tick {name:8}  {APPS} apps  {RUNNERS} runners  {median:.1f} ms CPU (most {most:.1f}; "
            f"goal < {MOST_MILLISECONDS:.0f})  {outcome}"
        )
    # Skip the first quarter of the hour, which fills caches and the allocator's arenas.
    early, late = statistics.median(megabytes[2:5]), statistics.median(megabytes[-3:])
    outcome = "flat" if late < early * MOST_GROWTH else "GROWS"
    print(
        f"memory over {HOUR_SECONDS} s of churn ({started} runners replaced)  {early:.0f} MB early, {late:.0f} MB late "
        f"(goal < {MOST_GROWTH:.2f}x)  {outcome}"
    )


if __name__ == "__main__":
    main()
