"""`client.queue`, blocking and asyncio, with a real controller and a real app."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from fal.api import AsyncServerlessClient, QueueState, SyncServerlessClient
from fal_grpc.errors import ArgumentError, CallError, NotFoundError
from tests.support.controller import Controller
from tests.support.queue import Queue


@pytest.fixture(scope="module")
def deployed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return Queue(controller, "queued-sdk", tmp_path_factory.mktemp("queued-sdk")).deploy()


@pytest.fixture
def queue(deployed: Queue, tmp_path: Path) -> Generator[Queue]:
    """Return the app's queue, with the test's own records and gate."""
    yield Queue(deployed.controller, deployed.app, tmp_path)
    (tmp_path / "gate").touch()


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
async def test_the_sdk_sees_and_changes_the_queue(queue: Queue, face: str) -> None:
    app, caller = queue.app, queue.controller.key.partition(":")[0]

    async def ask(method: str, *args: object, **kwargs: object) -> Any:
        if face == "blocking":
            with SyncServerlessClient(queue.controller.host, queue.controller.key) as client:
                return getattr(client.queue, method)(*args, **kwargs)
        async with AsyncServerlessClient(queue.controller.host, queue.controller.key) as client:
            return await getattr(client.queue, method)(*args, **kwargs)

    queue.scale(max_concurrency=1)
    running = queue.submit("sdk", gate=str(queue.gate))
    queue.noted("sdk")
    waiting = queue.submit("sdk2", headers={"X-Fal-Queue-Priority": "low"})
    assert await ask("size", app) == 1
    assert await ask("size_by_user", app) == {caller: 1}
    assert [one.request_id for one in await ask("list", app, limit=2)] == [waiting, running]
    (listed,) = await ask("list", app, state="in_progress")
    assert (listed.request_id, listed.app, listed.caller, listed.attempt) == (running, app, caller, 1)
    asked = await ask("get", app, waiting)
    assert (asked.state, asked.priority, asked.queue_position, asked.status) == (QueueState.IN_QUEUE, "low", 0, None)
    assert asked.created_at.tzinfo is not None
    assert await ask("flush", app, caller_user_id="nobody") == 0
    assert await ask("flush", app, limit=5) == 1
    assert await ask("flush", app) == 0
    cancelled = await ask("cancel", app, running)
    assert cancelled.state is QueueState.IN_PROGRESS
    queue.gate.touch()
    queue.finished(running)
    with pytest.raises(CallError):
        await ask("cancel", app, running)
    with pytest.raises(NotFoundError, match="app 'none' not found"):
        await ask("size", "none")
    with pytest.raises(NotFoundError):
        await ask("get", app, "unheard-of")
    with pytest.raises(ArgumentError, match="state"):
        await ask("list", app, state="asleep")
    with pytest.raises(ArgumentError, match="limit"):
        await ask("list", app, limit=0)

    dead = queue.submit("given-up", status=503, headers={"X-Fal-No-Retry": "1"})
    queue.finished(dead)
    assert dead in [one.request_id for one in await ask("list", app, dead=True)]
    assert (await ask("redrive", app, dead)).state is QueueState.IN_QUEUE
    queue.noted("given-up", times=2)
    queue.finished(dead)
    with pytest.raises(CallError):
        await ask("redrive", app, waiting)
    assert await ask("redrive_many", app, [waiting, *["none"] * 150, dead]) == [dead]
    queue.noted("given-up", times=3)
    queue.finished(dead)
