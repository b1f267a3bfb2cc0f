"""Watched apps and runners on both sides: merging, and resuming after breaks. Some controllers can only list."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal_grpc.errors import ArgumentError, NotFoundError, UnavailableError
from fal_grpc.v1.app_pb2 import AliasInfo, AppLoad, ListAliasesResult, WatchAppsResponse
from fal_grpc.v1.runner_pb2 import ListRunnersResponse, RunnerInfo, RunnerUsage, WatchRunnersResponse
from tests.client.support import HANG_SECONDS, FakeController, Side, serving

KEY = "id:hidden-secret"


def watched(side: Side, host: str, noun: str, count: int, **options: Any) -> list[list[Any]]:
    """Return the first lists of a watch."""

    async def awaited() -> list[list[Any]]:
        async with asyncio.timeout(HANG_SECONDS), AsyncServerlessClient(host, KEY) as client:
            found: list[list[Any]] = []
            async with aclosing(getattr(client, noun).watch(**options)) as lists:
                async for items in lists:
                    found.append(items)
                    if len(found) == count:
                        break
            return found

    if side.name == "asyncio":
        return asyncio.run(awaited())
    with SyncServerlessClient(host, KEY) as client, closing(getattr(client, noun).watch(**options)) as lists:
        return [next(lists) for _ in range(count)]


def runner(runner_id: str, state: Any = RunnerInfo.IDLE, **fields: Any) -> RunnerInfo:
    return RunnerInfo(runner_id=runner_id, alias="a", state=state, **fields)


def test_messages_add_up_and_a_break_leaves_no_gap(side: Side, fake: FakeController) -> None:
    asked: list[str] = []

    def answer(request, context):
        asked.append(request.version)
        if not request.version:
            yield WatchRunnersResponse(snapshot=True, runners=[runner("r1"), runner("r2")])
            yield WatchRunnersResponse(runners=[runner("r3")], version="v1")
            yield WatchRunnersResponse(runners=[runner("half")])  # and the version that should follow is lost
            context.abort(grpc.StatusCode.UNAVAILABLE, "the controller is stopping")
        yield WatchRunnersResponse(runners=[runner("r2", RunnerInfo.TERMINATED), runner("r4")], version="v2")
        yield WatchRunnersResponse(runners=[runner("r1", RunnerInfo.RUNNING)], removed=["r3"], version="v3")
        yield WatchRunnersResponse(snapshot=True, runners=[runner("r9")], version="w1")

    fake.answers["WatchRunners"] = answer
    found = watched(side, fake.host, "runners", 4)
    assert [[(one.runner_id, one.state.value) for one in runners] for runners in found] == [
        [("r1", "IDLE"), ("r2", "IDLE"), ("r3", "IDLE")],
        [("r1", "IDLE"), ("r3", "IDLE"), ("r4", "IDLE")],
        [("r1", "RUNNING"), ("r4", "IDLE")],
        [("r9", "IDLE")],
    ]
    assert asked == ["", "v1"]


def test_ended_runners_stay_on_request_and_states_choose(side: Side, fake: FakeController) -> None:
    fake.answers["WatchRunners"] = [
        WatchRunnersResponse(snapshot=True, runners=[runner("r1"), runner("r2", RunnerInfo.SETUP)], version="v1"),
        WatchRunnersResponse(runners=[runner("r1", RunnerInfo.TERMINATED)], version="v2"),
    ]
    since = datetime(2026, 1, 1, tzinfo=UTC)
    first, second = watched(side, fake.host, "runners", 2, since=since, state=["idle", "terminated"], app="a")
    assert [one.state.value for one in first] == ["IDLE"]
    assert [one.state.value for one in second] == ["TERMINATED"]
    request: Any = fake.calls[0].request
    assert (request.alias, request.start_time.ToDatetime(tzinfo=UTC)) == ("a", since)


def test_times_go_on_and_usage_is_told(side: Side, fake: FakeController) -> None:
    usage = RunnerUsage(cpu_cores=0.5, memory_bytes=9)
    shown = runner("r1", uptime=5.0, expiration_countdown=60, usage=usage)
    fake.answers["WatchRunners"] = [WatchRunnersResponse(snapshot=True, runners=[shown], version="v1")]
    [[found]] = watched(side, fake.host, "runners", 1)
    assert timedelta(seconds=5) <= found.uptime < timedelta(seconds=5 + HANG_SECONDS)
    assert 60 - HANG_SECONDS < found.expiration_countdown <= 60
    assert (found.usage.cpu_cores, found.usage.memory_bytes, found.usage.gpu_memory_bytes) == (0.5, 9, None)


def test_apps_are_watched_by_name(side: Side, fake: FakeController) -> None:
    load = AppLoad(in_flight=3, queued=2)
    fake.answers["WatchApps"] = [
        WatchAppsResponse(snapshot=True, apps=[AliasInfo(alias="b1"), AliasInfo(alias="c")], version="v1"),
        WatchAppsResponse(apps=[AliasInfo(alias="a1", load=load)], version="v2"),
        WatchAppsResponse(removed=["b1"], version="v3"),
    ]
    found = watched(side, fake.host, "apps", 3, filter="1", environment_name="dev")
    assert [[app.alias for app in apps] for apps in found] == [["b1"], ["a1", "b1"], ["a1"]]
    assert [app.load and (app.load.in_flight, app.load.queued) for app in found[1]] == [(3, 2), None]
    request: Any = fake.calls[0].request
    assert request.environment_name == "dev"


def test_a_controller_that_can_only_list_is_asked_again(side: Side) -> None:
    with serving(FakeController(isolate_only=True)) as fake:
        fake.answers["ListRunners"] = ListRunnersResponse(runners=[runner("r1"), runner("r2", RunnerInfo.SETUP)])
        fake.answers["ListAliases"] = ListAliasesResult(aliases=[AliasInfo(alias="a")])
        [[one]] = watched(side, fake.host, "runners", 1, state=["idle"])
        assert one.runner_id == "r1"
        [[app]] = watched(side, fake.host, "apps", 1)
        assert app.alias == "a"
        assert len(watched(side, fake.host, "runners", 2)) == 2  # after two seconds, once more


def test_what_cannot_be_watched_says_so(side: Side, fake: FakeController) -> None:
    def missing(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "there is no app 'x'")
        yield

    def stopped(request, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "the controller is starting")
        yield

    fake.answers["WatchRunners"] = missing
    with pytest.raises(NotFoundError):
        watched(side, fake.host, "runners", 1, app="x")
    with pytest.raises(ArgumentError):
        watched(side, fake.host, "runners", 1, state=["nosuch"])
    fake.answers["WatchRunners"] = stopped
    with pytest.raises(UnavailableError):
        watched(side, fake.host, "runners", 1)
