"""A broken link to a command reconnects soon. Links do not reconnect in lockstep, and not forever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from fal_grpc.adapter.execs import ExecInfo, ExecSpec
from fal_grpc.aio import AsyncController
from fal_grpc.controller import Controller
from fal_grpc.errors import ExecLinkError, NotFoundError, PermissionDeniedError, UnavailableError
from fal_grpc.exec_link import ExecReconnectPolicy
from fal_grpc.target import parse_target
from fal_grpc.v1 import exec_pb2
from tests.client.support import KEY

INFO = ExecInfo(
    exec_id="e",
    runner_id="r",
    command=("true",),
    tty=False,
    keep=False,
    attached=False,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    ended_at=None,
    exit_code=None,
    output_bytes=0,
)


def test_pauses_grow_to_a_second_and_differ():
    notices: list[str] = []
    policy = ExecReconnectPolicy(INFO, notices.append)
    pauses = [policy.pause(UnavailableError("gone")) for _ in range(50)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.5 <= pause <= 1 for pause in pauses[-20:])
    assert len(set(pauses[-20:])) > 1
    policy.succeeded()
    assert 0.05 <= policy.pause(UnavailableError("gone")) <= 0.1
    assert [message.split()[0] for message in notices] == ["the", "reconnected", "the"]


def test_what_another_attempt_cannot_help_is_raised():
    with pytest.raises(PermissionDeniedError):
        ExecReconnectPolicy(INFO, print).pause(PermissionDeniedError("no"))
    with pytest.raises(NotFoundError):
        ExecReconnectPolicy(INFO, print).pause(NotFoundError("no such command"))
    started = ExecReconnectPolicy(INFO, print)
    started.succeeded()
    with pytest.raises(ExecLinkError, match="not known"):
        started.pause(NotFoundError("the runner has ended"))


async def test_calls_that_a_terminal_waits_for_have_a_short_deadline(fake):
    fake.answers = {"StartExec": exec_pb2.StartExecResponse(exec=exec_pb2.ExecInfo(exec_id="e", runner_id="r"))}
    fake.answers |= {name: getattr(exec_pb2, f"{name}Response")() for name in ("CloseExec", "SignalExec", "ResizeExec")}
    spec = ExecSpec(runner_id="r", command=["true"])

    def blocking() -> None:
        with Controller(parse_target(fake.host), KEY) as controller:
            session = controller.start_exec(spec, interactive=True)
            session.resize(24, 80)
            session.signal(2)
            session.close()

    await asyncio.to_thread(blocking)
    async with AsyncController(parse_target(fake.host), KEY) as controller:
        session = await controller.start_exec(spec, interactive=True)
        await session.resize(24, 80)
        await session.signal(2)
        await session.close()
    prompt = [call for call in fake.calls if not call.path.endswith("StartExec")]
    assert len(prompt) == 6
    assert all(call.time_remaining is not None and call.time_remaining < 6 for call in prompt)
