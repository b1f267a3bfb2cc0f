"""The value or exception of a function comes back from its runner."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from typing import Any

import pytest

from fal_server.core.faults import Unavailable
from fal_server.core.lifecycle import Event


async def test_a_value_comes_back(rig: Any) -> None:
    def app() -> dict[str, int]:
        print("the app's own output")
        return {"answer": 42}

    runner = await rig.start(app)
    result = await rig.engine.result(runner)
    assert result.method == "cloudpickle"
    assert not result.raised
    assert pickle.loads(result.definition) == {"answer": 42}
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 0
    assert rig.lines.app_lines(runner.runner_id) == ["the app's own output"]
    assert await rig.engine.result(runner) == result


async def test_a_large_value_comes_back(rig: Any) -> None:
    runner = await rig.start(lambda: b"x" * 20_000_000)
    assert len(pickle.loads((await rig.engine.result(runner)).definition)) == 20_000_000


async def test_an_exception_comes_back(rig: Any) -> None:
    def inner() -> None:
        raise KeyError("missing")

    def app() -> None:
        inner()

    result = await rig.engine.result(await rig.start(app))
    assert result.raised
    assert result.exception_type == "KeyError"
    assert result.exception_message == "'missing'"
    assert result.traceback is not None
    assert result.traceback.startswith("Traceback")
    assert "in inner" in result.traceback
    assert isinstance(pickle.loads(result.definition), KeyError)


async def test_a_value_that_cannot_be_serialized_is_an_exception(rig: Any) -> None:
    def app() -> Any:
        return (number for number in range(3))

    result = await rig.engine.result(await rig.start(app))
    assert result.raised
    assert result.exception_type == "TypeError"
    assert "generator" in (result.exception_message or "")


async def test_a_coroutine_is_awaited_and_setup_comes_first(rig: Any) -> None:
    async def setup() -> str:
        await asyncio.sleep(0)
        return "prepared"

    async def app(prepared: str) -> str:
        import threading

        assert threading.current_thread() is threading.main_thread()
        return prepared + " and run"

    result = await rig.engine.result(await rig.start(app, setup=setup))
    assert pickle.loads(result.definition) == "prepared and run"


async def test_no_result_is_said(rig: Any) -> None:
    def app() -> None:
        import os

        os._exit(3)

    runner = await rig.start(app)
    with pytest.raises(Unavailable, match="exited with code 3"):
        await rig.engine.result(runner)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 3


async def test_who_waits_for_a_result_is_told_that_the_controller_ends(rig: Any) -> None:
    def app() -> None:
        import threading

        threading.Event().wait()

    runner = await rig.start(app)
    waiting = asyncio.ensure_future(rig.engine.result(runner))
    await asyncio.sleep(0)  # so that it waits
    await rig.restart(adopt=runner)
    with pytest.raises(Unavailable, match="let go"):
        await waiting


async def test_a_result_survives_the_controller(rig: Any) -> None:
    def app() -> str:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print("waiting", flush=True)
        signal.sigwait({signal.SIGUSR1})
        return "kept"

    runner = await rig.start(app)
    await rig.lines.until(runner.runner_id, "waiting")
    worker = int((await rig.lines.until(runner.runner_id, "worker started")).message.rpartition(" ")[2])
    await rig.shut()
    os.kill(worker, signal.SIGUSR1)
    await rig.worker_ended(worker)
    assert await rig.restart(adopt=runner)
    assert pickle.loads((await rig.engine.result(runner)).definition) == "kept"
    assert (await rig.until(runner, Event.GONE)).exit_code == 0
