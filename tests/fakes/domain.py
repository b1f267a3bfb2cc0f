"""Plain domain objects with defaults. A test then names only the relevant fields."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fal_server.core.apps import App, AuthMode
from fal_server.core.identity import LOCAL, AppId, Scope
from fal_server.core.machines import Node, Resources
from fal_server.core.revisions import EnvironmentSpec, Revision
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.core.scaling import Scaling

SCOPE = Scope(account=LOCAL, permissions=frozenset({"*"}))
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BIG_NODE = Node(name="here", total=Resources(milli_cpus=64_000, memory_mib=512 * 10_000, gpus={"GPU-A": 2}))


def at(seconds: float) -> datetime:
    """Return the time this many seconds after the start of every test."""
    return START + timedelta(seconds=seconds)


def app_id(full_name: str = "a") -> AppId:
    return AppId.parse(LOCAL, full_name)


def make_app(name: str = "a", revision_id: str = "r1", **changes: Any) -> App:
    scaling = {key: changes.pop(key) for key in list(changes) if key in Scaling.__dataclass_fields__}
    app = App(
        account=LOCAL,
        name=name,
        environment="main",
        revision_id=revision_id,
        auth_mode=AuthMode.PUBLIC,
        scaling=Scaling(**scaling),
        created_at=START,
        updated_at=START,
    )
    return replace(app, **changes)


def make_runner(runner_id: str = "x", state: RunnerState = RunnerState.PENDING, **changes: Any) -> Runner:
    """Return a runner in a state, with that state's fields."""
    runner = Runner(
        account=LOCAL,
        runner_id=runner_id,
        app_name="a",
        environment="main",
        revision_id="r1",
        machine_type="XS",
        token="t",
        created_at=START,
        state=state,
    )
    if state not in (RunnerState.PENDING, RunnerState.FAILURE_DELAY):
        runner = replace(runner, started_at=START, node="here")
    if state in (RunnerState.IDLE, RunnerState.DRAINING):
        runner = replace(runner, ready_at=START, port=1000)
    if changes.get("desired", Desired.SERVE) is not Desired.SERVE:
        runner = replace(runner, unrouted_at=START)
    return replace(runner, **changes)


def make_revision(revision_id: str = "r1", app_name: str = "a", **changes: Any) -> Revision:
    scaling = {key: changes.pop(key) for key in list(changes) if key in Scaling.__dataclass_fields__}
    revision = Revision(
        account=LOCAL,
        revision_id=revision_id,
        app_name=app_name,
        environment="main",
        created_at=START,
        environments=(EnvironmentSpec(kind="virtualenv", configuration={}),),
        function=None,
        entrypoint="module:app",
        exposed_port=8080,
        scaling=Scaling(**scaling),
    )
    return replace(revision, **changes)
