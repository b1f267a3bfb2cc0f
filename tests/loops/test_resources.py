"""A runner that cannot be measured is set aside. It does not stop others."""

from __future__ import annotations

import pytest

from fal_server.core.resources import ResourceSample
from fal_server.core.runners import RunnerState
from fal_server.loops.resources import ResourceLoop
from tests.fakes.domain import START, make_runner
from tests.fakes.platform import Platform


async def test_a_runner_that_cannot_be_measured_stops_no_other(
    idle: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    await idle.fleet.add([make_runner(name, RunnerState.IDLE, ready_at=START) for name in ("x", "y")])
    for name in ("x", "y"):
        idle.engine.alive[name] = None
        idle.engine.measured[name] = ResourceSample(cpu_seconds=1.0, memory_bytes=1 << 20)
    idle.engine.poisoned = {"x"}
    loop = ResourceLoop(idle.fleet, idle.engine, idle.resources, idle.clock)
    await loop.measure()
    await loop.measure()
    assert idle.resources.of("x") is None
    assert idle.resources.of("y") is not None
    assert caplog.text.count("runner x was not measured; it is set aside") == 1
    idle.engine.poisoned = set()
    idle.clock.advance(60)
    await loop.measure()
    assert idle.resources.of("x") is not None
