"""Apps and runners: requests become calls of services, and views become messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.adapter.runner import runner_info as from_wire
from fal_grpc.v1 import app_pb2, revision_pb2, runner_pb2
from fal_grpc.v1.app_pb2_grpc import AppsStub
from fal_grpc.v1.revision_pb2_grpc import RevisionsStub
from fal_grpc.v1.runner_pb2_grpc import RunnersStub
from fal_server.core.apps import AuthMode, Strategy
from fal_server.core.history import StartPhases, StateChange
from fal_server.core.identity import LOCAL
from fal_server.core.revisions import Revision
from fal_server.core.runners import Desired, RunnerState
from fal_server.core.scaling import Scaling
from fal_server.grpc.runners import STATES, runner_info
from fal_server.live.runner_view import RequestLease, RunnerView
from fal_server.services.views import RevisionView
from tests.fakes.domain import make_runner
from tests.grpc.conftest import Stack

SCALING = Scaling(
    keep_alive=1,
    min_concurrency=2,
    max_concurrency=3,
    concurrency_buffer=4,
    concurrency_buffer_perc=5,
    scaling_delay=6,
    max_multiplexing=7,
    request_timeout=8,
    request_start_timeout=9,
    startup_timeout=10,
    machine_types=("M", "L"),
    regions=("us-west",),
)
SHOWN = {
    "keep_alive": 1,
    "min_concurrency": 2,
    "max_concurrency": 3,
    "concurrency_buffer": 4,
    "concurrency_buffer_perc": 5,
    "scaling_delay_seconds": 6,
    "max_multiplexing": 7,
    "request_timeout": 8,
    "request_start_timeout": 9,
    "startup_timeout": 10,
    "machine_types": ["M", "L"],
    "valid_regions": ["us-west"],
    "active_runners": 1,
    "environment_name": "main",
}


def plain(message) -> dict[str, object]:
    return MessageToDict(message, preserving_proto_field_name=True)


async def test_an_app_shows_all_its_settings(stack: Stack) -> None:
    stack.apps.add(scaling=SCALING, auth_mode=AuthMode.SHARED, next_revision_id="rev-2")
    stack.apps.add("plain")
    stack.apps.add("other--staging", environment="staging")
    listed = await AppsStub(stack.channel).ListAliases(app_pb2.ListAliasesRequest(), metadata=stack.metadata)
    first, second = listed.aliases
    assert plain(first) == SHOWN | {
        "alias": "hello",
        "revision": "rev-1",
        "auth_mode": "SHARED",
        "is_rolling": True,
    }
    assert not second.HasField("request_start_timeout")
    there = await AppsStub(stack.channel).ListAliases(
        app_pb2.ListAliasesRequest(environment_name="staging"), metadata=stack.metadata
    )
    assert [each.alias for each in there.aliases] == ["other--staging"]


async def test_a_revision_shows_all_its_settings(stack: Stack) -> None:
    revision = Revision(
        account=LOCAL,
        revision_id="rev-1",
        app_name="hello",
        environment="main",
        created_at=stack.clock.now(),
        environments=(),
        function=None,
        entrypoint="a:b",
        scaling=SCALING,
        metadata={"openapi": {}, "message": "a note", "annotations": {"GIT": "abc"}},
    )
    stack.revisions.views = [RevisionView(revision=revision, active_runners=1, current=True)]
    request = revision_pb2.ListApplicationsRequest(application_name="hello")
    listed = await RevisionsStub(stack.channel).ListApplications(request, metadata=stack.metadata)
    assert [plain(each) for each in listed.applications] == [
        SHOWN
        | {"application_id": "rev-1", "created_at": "2026-03-01T12:00:00Z", "application_name": "hello"}
        | {"current": True, "message": "a note", "annotations": [{"name": "GIT", "value": "abc"}]}
    ]


async def test_an_empty_region_means_any(stack: Stack) -> None:
    stack.apps.add()
    request = app_pb2.UpdateApplicationRequest(application_name="hello", valid_regions=[""])
    await AppsStub(stack.channel).UpdateApplication(request, metadata=stack.metadata)
    assert stack.apps.calls == [("hello", "main", {"regions": ()})]


async def test_only_what_is_set_is_changed_and_zero_is_a_value(stack: Stack) -> None:
    stack.apps.add()
    request = app_pb2.UpdateApplicationRequest(
        application_name="hello",
        keep_alive=0,
        request_start_timeout=0,
        scaling_delay_seconds=30,
        machine_types=["L"],
        valid_regions=["eu-north"],
    )
    answer = await AppsStub(stack.channel).UpdateApplication(request, metadata=stack.metadata)
    assert stack.apps.calls == [
        (
            "hello",
            "main",
            {
                "keep_alive": 0,
                "scaling_delay": 30,
                "request_start_timeout": 0,
                "machine_types": ("L",),
                "regions": ("eu-north",),
            },
        )
    ]
    assert (answer.alias_info.keep_alive, answer.alias_info.scaling_delay_seconds) == (0, 30)


async def test_an_app_is_moved_rolled_out_and_deleted(stack: Stack) -> None:
    stack.apps.add()
    apps = AppsStub(stack.channel)
    plainly = app_pb2.SetAliasRequest(alias="hello", revision="rev-2")
    fully = app_pb2.SetAliasRequest(
        alias="hello", revision="rev-3", auth_mode=app_pb2.PUBLIC, deployment_strategy=app_pb2.RECREATE
    )
    await apps.SetAlias(plainly, metadata=stack.metadata)
    answer = await apps.SetAlias(fully, metadata=stack.metadata)
    assert (answer.alias_info.revision, answer.alias_info.auth_mode) == ("rev-3", app_pb2.PUBLIC)
    for force in (None, False, True):
        request = app_pb2.RolloutApplicationRequest(application_name="hello", force=force)
        await apps.RolloutApplication(request, metadata=stack.metadata)
    assert stack.apps.calls == [
        ("hello", "main", "rev-2", None, None),
        ("hello", "main", "rev-3", AuthMode.PUBLIC, Strategy.RECREATE),
        ("hello", "main", False),
        ("hello", "main", False),
        ("hello", "main", True),
    ]
    gone = await apps.DeleteAlias(app_pb2.DeleteAliasRequest(alias="hello"), metadata=stack.metadata)
    assert gone.revision == "rev-3"


async def test_a_runner_shows_what_is_true_of_it(stack: Stack) -> None:
    now = stack.clock.now()
    stack.runners.add(
        stack.runner("idle", reason="because", ready_at=now, node="here"),
        state=RunnerState.RUNNING,
        in_flight=1,
        uptime_seconds=12.5,
        leases=(RequestLease(request_id="q", caller="u", started_at=now),),
    )
    stack.runners.add(
        stack.runner("gone", state=RunnerState.TERMINATED, ended_at=now + timedelta(seconds=1), exit_code=0),
        expires_in_seconds=0,
    )
    runners = RunnersStub(stack.channel)
    listed = await runners.ListRunners(runner_pb2.ListRunnersRequest(list_pending=True), metadata=stack.metadata)
    assert [plain(each) for each in listed.runners] == [
        {
            "runner_id": "idle",
            "in_flight_requests": 1,
            "uptime": 12.5,
            "external_metadata": {
                "reason": "because",
                "leases": [{"request_id": "q", "caller_user_id": "u", "leased_at_epoch": now.timestamp()}],
            },
            "revision": "rev-1",
            "alias": "hello",
            "state": "RUNNING",
            "machine_type": "XS",
            "state_reason": "because",
            "created_at": "2026-03-01T12:00:00Z",
            "ready_at": "2026-03-01T12:00:00Z",
            "environment_name": "main",
            "node": "here",
        },
        {
            "runner_id": "gone",
            "expiration_countdown": 0,
            "external_metadata": {"reason": "", "leases": []},
            "revision": "rev-1",
            "alias": "hello",
            "state": "TERMINATED",
            "machine_type": "XS",
            "created_at": "2026-03-01T12:00:00Z",
            "ended_at": "2026-03-01T12:00:01Z",
            "environment_name": "main",
            "exit_code": 0,
        },
    ]
    assert listed.runners[0].HasField("state")
    one = await runners.GetRunner(runner_pb2.GetRunnerRequest(runner_id="gone"), metadata=stack.metadata)
    assert one.runner == listed.runners[1]


async def test_runners_come_in_pages_to_who_asks_for_them(stack: Stack) -> None:
    for number in range(3):
        stack.runners.add(stack.runner(f"r{number}"))
    runners = RunnersStub(stack.channel)
    token = None
    for expected in (["r0", "r1"], ["r2"]):
        request = runner_pb2.ListRunnersRequest(page_size=2, page_token=token)
        answer = await runners.ListRunners(request, metadata=stack.metadata)
        assert [found.runner_id for found in answer.runners] == expected
        mine = runner_pb2.ListAliasRunnersRequest(alias="hello", page_size=2, page_token=token)
        assert (await runners.ListAliasRunners(mine, metadata=stack.metadata)).runners == answer.runners
        token = answer.next_page_token
    assert not answer.HasField("next_page_token")
    whole = await runners.ListRunners(runner_pb2.ListRunnersRequest(), metadata=stack.metadata)
    assert len(whole.runners) == 3
    assert not whole.HasField("next_page_token")


async def test_which_runners_are_asked_for(stack: Stack) -> None:
    stack.runners.add(stack.runner())
    runners = RunnersStub(stack.channel)
    since = Timestamp(seconds=1_700_000_000, nanos=5000)
    await runners.ListRunners(runner_pb2.ListRunnersRequest(), metadata=stack.metadata)
    await runners.ListAliasRunners(
        runner_pb2.ListAliasRunnersRequest(alias="hello", list_pending=True, start_time=since),
        metadata=stack.metadata,
    )
    await runners.StopRunner(runner_pb2.StopRunnerRequest(runner_id="runner-1"), metadata=stack.metadata)
    await runners.StopRunner(
        runner_pb2.StopRunnerRequest(runner_id="runner-1", replace_first=True, grace_seconds=0),
        metadata=stack.metadata,
    )
    await runners.KillRunner(runner_pb2.KillRunnerRequest(runner_id="runner-1"), metadata=stack.metadata)
    since_time = since.ToDatetime(tzinfo=stack.clock.now().tzinfo)
    assert stack.runners.calls == [
        (None, False),
        ("hello", since_time, True),
        ("runner-1", False, None),
        ("runner-1", True, 0),
    ]


STATE_WORDS = {number: state.value for state, number in STATES.items()}


def test_every_state_has_a_number_that_published_clients_know() -> None:
    assert set(STATES) == set(RunnerState)
    assert sorted(STATES.values()) == [0, 1, 2, 4, 5, 6, 7, 8, 9]  # never 3, the old DEAD
    assert {state.value.upper() for state in RunnerState} == {
        runner_pb2.RunnerInfo.State.Name(number) for number in STATES.values()
    }


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "NO_REPLACE"),
        ({"replace_first": True}, "WILL_REPLACE"),
        ({"replace_first": True, "replaced_by": "x"}, "WILL_REPLACE"),
        ({"replace_first": True, "replaced_by": "x", "desired": Desired.DRAIN}, "DID_REPLACE"),
        ({"replaced_by": "x", "desired": Desired.GONE}, "DID_REPLACE"),
        ({"replace_first": True, "desired": Desired.GONE}, "NO_REPLACE"),
    ],
)
def test_whether_another_takes_its_place(runner_, changes, shown) -> None:
    view = RunnerView(
        runner=replace(runner_, **changes),
        state=RunnerState.IDLE,
        in_flight=0,
        expires_in_seconds=None,
        uptime_seconds=0.0,
    )
    assert runner_pb2.RunnerInfo.ReplaceState.Name(runner_info(view, {}).replacement) == shown


async def test_one_runner_comes_with_what_it_went_through(stack: Stack) -> None:
    runners = RunnersStub(stack.channel)
    moves = [
        (RunnerState.PENDING, "1 requests"),
        (RunnerState.PENDING, "ordered on local as XS"),
        (RunnerState.IDLE, ""),
    ]
    history = tuple(
        StateChange(runner_id="runner-1", at=stack.clock.now(), state=state, reason=reason) for state, reason in moves
    )
    phases = StartPhases(waiting=1.5, environment=0.25, setup=3.0)
    stack.runners.add(make_runner("runner-1"), history=history, phases=phases)
    answer = await runners.GetRunner(runner_pb2.GetRunnerRequest(runner_id="runner-1"), metadata=stack.metadata)
    info = answer.runner
    assert [(STATE_WORDS[c.state], c.reason) for c in info.state_changes] == [(s.value, r) for s, r in moves]
    assert info.state_changes[0].at.ToDatetime(tzinfo=UTC) == stack.clock.now()
    assert (info.start_phases.waiting_seconds, info.start_phases.setup_seconds) == (1.5, 3.0)
    assert not info.start_phases.HasField("first_byte_seconds")
    got = from_wire(info)
    assert [change.reason for change in got.state_changes] == [reason for _, reason in moves]
    assert got.start_phases is not None
    assert (got.start_phases.environment, got.start_phases.first_byte) == (0.25, None)


async def test_an_app_is_explained(stack: Stack) -> None:
    apps = AppsStub(stack.channel)
    explained = await apps.ExplainApp(app_pb2.ExplainAppRequest(application_name="hello"), metadata=stack.metadata)
    assert (explained.load.in_flight, explained.load.queued, explained.load.eligible) == (3, 2, 1)
    assert explained.decision.start_below == 4
    assert "4 requests / 1 at once = 4 runners" in explained.decision.arithmetic
    assert {STATE_WORDS[c.state]: c.count for c in explained.runners} == {"running": 2, "pending": 1}
    assert [(d.action, d.subject, d.reason) for d in explained.decisions] == [("start", "r1", "4 requests")]
    assert (explained.next_revision, explained.failed_starts, explained.last_failure) == ("r2", 1, "setup() raised")
    assert explained.lack.startswith("no machine is in a region that the app allows (us-west)")


async def test_a_load_is_simulated(stack: Stack) -> None:
    apps = AppsStub(stack.channel)
    arrivals = [app_pb2.SimulatedArrival(at_seconds=i, duration_seconds=5) for i in range(20)]
    simulated = await apps.SimulateApp(
        app_pb2.SimulateAppRequest(
            arrivals=arrivals, start_seconds=1, settings={"max_concurrency": 3, "scaling_delay_seconds": 2}
        ),
        metadata=stack.metadata,
    )
    assert simulated.settings.max_concurrency == simulated.most_runners == 3
    assert simulated.settings.scaling_delay_seconds == 2
    assert simulated.unserved == 0
    assert max(point.in_flight for point in simulated.points) == 3
    assert 0 < simulated.wait_seconds_p50 <= simulated.wait_seconds_p95 <= simulated.wait_seconds_max
