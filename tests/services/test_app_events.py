"""An app's events from four kinds of rows. They are ordered, in pages of any size, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.app_events import (
    AppChange,
    Category,
    EventPlace,
    RecordedEvent,
    app_of,
    deployer_of,
    failed_deploy,
    named_in,
    of_recorded,
    of_runner,
    recorded_between,
)
from fal_server.core.apps import AuthMode, settled
from fal_server.core.audit import AuditEntry, AuditRow
from fal_server.core.faults import NotFound
from fal_server.core.history import StateChange
from fal_server.core.identity import LOCAL, AppId
from fal_server.core.runners import RunnerState, StopCause
from fal_server.services.app_events import AppEvents
from tests.store import strategies as some

APP = AppId.parse(LOCAL, "hello")
END = some.later(1000)


def at(seconds: int) -> datetime:
    return some.later(seconds)


def row(number: int, seconds: int, action: str, target: str, key_id: str = "k") -> AuditRow:
    entry = AuditEntry(
        account=LOCAL, at=at(seconds), key_id=key_id, action=action, target=target, source="", request_id=""
    )
    return AuditRow(sequence=number, entry=entry, digest="")


class Rows:
    """A store and an audit log of rows in memory. They have the order and the limits of the real ones."""

    def __init__(
        self,
        changes: Sequence[AppChange],
        revisions: Sequence[Any],
        audit: Sequence[AuditRow],
        recorded: Sequence[RecordedEvent] = (),
    ) -> None:
        self.changes, self.revisions, self.audit, self.recorded = changes, revisions, audit, recorded

    async def app_changes(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, str, int] | None, limit: int
    ) -> list[AppChange]:
        def place(found: AppChange) -> tuple[datetime, str, int]:
            return found.change.at, found.change.runner_id, found.number

        chosen = [one for one in self.changes if since <= one.change.at < until]
        return sorted((one for one in chosen if before is None or place(one) < before), key=place, reverse=True)[:limit]

    async def recorded_events(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, int] | None, limit: int
    ) -> list[RecordedEvent]:
        chosen = [one for one in self.recorded if since <= one.at < until]
        behind = [one for one in chosen if before is None or (one.at, one.number) < before]
        return sorted(behind, key=lambda one: (one.at, one.number), reverse=True)[:limit]

    async def list_revisions(self, account: object, app_name: str, environment: object) -> list[Any]:
        return sorted(self.revisions, key=lambda one: (one.created_at, one.revision_id), reverse=True)

    async def of_actions(
        self,
        account: object,
        actions: Sequence[str],
        since: datetime,
        until: datetime,
        before: tuple[datetime, int] | None,
        limit: int,
    ) -> list[AuditRow]:
        chosen = [one for one in self.audit if one.entry.action in actions and since <= one.entry.at < until]
        behind = [one for one in chosen if before is None or (one.entry.at, one.sequence) < before]
        return sorted(behind, key=lambda one: (one.entry.at, one.sequence), reverse=True)[:limit]


class OneApp:
    def require(self, app_id: AppId) -> None:
        if app_id != APP:
            raise NotFound("app")


class Clock:
    def now(self) -> datetime:
        return END

    wall = now


def events_of(rows: Rows) -> AppEvents:
    return AppEvents(cast("Any", rows), cast("Any", rows), cast("Any", OneApp()), Clock())


SECONDS = st.integers(0, 4)
CHANGES = st.lists(
    st.tuples(st.sampled_from("ab"), SECONDS, st.sampled_from(list(RunnerState))), max_size=8, unique_by=lambda x: x
)
ACTIONS = ("Apps.SetAlias", "Revisions.RegisterApplication", "Secrets.SetSecret")
AUDIT = st.lists(st.tuples(SECONDS, st.sampled_from(ACTIONS), st.sampled_from(["hello", "other"])), max_size=8)


@given(CHANGES, st.lists(SECONDS, max_size=4), AUDIT, st.lists(SECONDS, max_size=4), st.integers(1, 5), st.booleans())
async def test_pages_together_are_the_whole(changes, revisions, audit, recorded, limit, only_runners) -> None:
    rows = Rows(
        [
            AppChange(
                change=StateChange(runner_id=runner_id, at=at(seconds), state=state), number=number,
                runner=some.runner(runner_id),
            )
            for number, (runner_id, seconds, state) in enumerate(changes)
        ],
        [some.revision(f"r{number}", at=seconds) for number, seconds in enumerate(revisions)],
        [row(n, seconds, action, f"application_name={app}") for n, (seconds, action, app) in enumerate(audit)],
        [replace(failed_deploy(APP, at(seconds), "why"), number=number) for number, seconds in enumerate(recorded)],
    )  # fmt: skip
    service = events_of(rows)
    wanted = {Category.RUNNER_STARTED, Category.RUNNER_PENDING} if only_runners else set()

    async def page(before: EventPlace | None, size: int) -> tuple[Sequence[Any], EventPlace | None]:
        return await service.page(APP, since=some.START, until=END, categories=wanted, before=before, limit=size)

    whole, behind = await page(None, 1000)
    assert behind is None
    places = [event.place for event in whole]
    assert places == sorted(set(places), reverse=True)
    mine = [one for one in audit if one[1] != "Secrets.SetSecret" and one[2] == "hello"]
    if not only_runners:
        assert len(whole) == len(changes) + len(revisions) + len(mine) + len(recorded)
    found: list[Any] = []
    while True:
        some_events, behind = await page(behind, limit)
        found += some_events
        if behind is None:
            break
        assert len(some_events) == limit
    assert found == list(whole)


async def test_an_app_that_is_not_there_has_no_events() -> None:
    with pytest.raises(NotFound):
        await events_of(Rows([], [], [])).page(
            AppId.parse(LOCAL, "other"), since=some.START, until=END, categories=(), before=None, limit=1
        )


def test_a_row_names_its_app_with_the_environment() -> None:
    assert app_of(row(1, 0, "Apps.SetAlias", "alias=hello, revision=r1")) == "hello"
    assert app_of(row(1, 0, "Apps.SetAlias", "alias=hello, revision=r1, environment_name=main")) == "hello"
    assert app_of(row(1, 0, "Apps.UpdateApplication", "application_name=a, environment_name=dev")) == "a--dev"
    assert app_of(row(1, 0, "Apps.UpdateApplication", "")) == ""
    assert named_in(row(1, 0, "x", "a=1, b=c=d")) == {"a": "1", "b": "c=d"}


def test_a_revision_is_its_last_deploy_s() -> None:
    deploys = [row(1, 0, "x", "", "first"), row(2, 5, "x", "", "second"), row(3, 50, "x", "", "later")]
    assert deployer_of(some.revision("r", at=6), deploys) == "second"
    assert deployer_of(some.revision("r", at=3), deploys) == "first"
    assert deployer_of(some.revision("r", at=0), []) is None


@pytest.mark.parametrize(
    ("fields", "category", "state"),
    [
        ({}, Category.RUNNER_FINISHED, None),
        ({"own_end": "it exited", "exit_code": 0}, Category.RUNNER_FINISHED, None),
        ({"own_end": "it exited", "exit_code": 3, "ready_at": at(1)}, Category.RUNNER_FAILED, RunnerState.IDLE),
        ({"stop_cause": StopCause.UNAVAILABLE, "ready_at": at(1)}, Category.RUNNER_FAILED, RunnerState.IDLE),
        ({"stop_cause": StopCause.LOST, "ready_at": at(1)}, Category.RUNNER_FAILED, RunnerState.IDLE),
        ({"failed_starts": 1, "started_at": at(1)}, Category.RUNNER_STARTUP_FAILURE, RunnerState.SETUP),
        ({"stop_cause": StopCause.STARTUP_TIMEOUT}, Category.RUNNER_STARTUP_FAILURE, RunnerState.PENDING),
    ],
)
def test_the_end_of_a_runner_is_a_failure_if_it_was_one(fields, category, state) -> None:
    change = StateChange(runner_id="a", at=at(9), state=RunnerState.TERMINATED, reason="why")
    event = of_runner(AppChange(change=change, number=4, runner=replace(some.runner("a"), **fields)))
    assert (event.category, event.runner_state, event.reason) == (category, state, "why")


def test_every_state_has_its_category() -> None:
    for state in RunnerState:
        change = StateChange(runner_id="a", at=at(9), state=state)
        assert of_runner(AppChange(change=change, number=1, runner=some.runner("a"))).category in Category


HELLO = some.app("hello", "r1")
COMING = replace(HELLO, next_revision_id="r2")
SCALED = replace(HELLO, scaling=replace(HELLO.scaling, keep_alive=77))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (None, HELLO, []),
        (HELLO, HELLO, []),
        (HELLO, COMING, [(Category.DEPLOYMENT_ROLLING_STARTED, "r2", "r1")]),
        (COMING, settled(COMING, revision_id="r2"), [(Category.DEPLOYMENT_ROLLING_ENDED, "r2", "r1")]),
        (COMING, settled(COMING), [(Category.DEPLOYMENT_ROLLING_FAILED, "r2", "r1")]),
        (
            COMING,
            replace(COMING, next_revision_id="r3"),
            [(Category.DEPLOYMENT_ROLLING_FAILED, "r2", "r1"), (Category.DEPLOYMENT_ROLLING_STARTED, "r3", "r1")],
        ),
        (
            COMING,
            settled(COMING, revision_id="r3"),
            [(Category.DEPLOYMENT_ROLLING_FAILED, "r2", "r1"), (Category.DEPLOYMENT_RECREATE_APPLIED, "r3", "r1")],
        ),
        (HELLO, replace(HELLO, revision_id="r2"), [(Category.DEPLOYMENT_RECREATE_APPLIED, "r2", "r1")]),
        (HELLO, SCALED, [(Category.CONFIG_CHANGED, None, None)]),
        (
            HELLO,
            replace(SCALED, revision_id="r2"),
            [(Category.DEPLOYMENT_RECREATE_APPLIED, "r2", "r1"), (Category.CONFIG_CHANGED, "r2", "r1")],
        ),
    ],
)
def test_a_change_of_the_row_is_told_by_what_changed(before, after, wanted) -> None:
    found = recorded_between(before, after, at(1), called=True)
    assert [(one.category, one.new_revision_id, one.old_revision_id) for one in found] == wanted
    assert {one.app_id for one in found} <= {APP}


def test_a_change_of_settings_tells_both() -> None:
    (found,) = recorded_between(HELLO, replace(SCALED, auth_mode=AuthMode.PUBLIC), at(1), called=True)
    assert found.config is not None
    assert (found.config.old["keep_alive"], found.config.new["keep_alive"]) == (HELLO.scaling.keep_alive, 77)
    assert (found.config.old_auth_mode, found.config.new_auth_mode) == (HELLO.auth_mode.value, "public")


def test_a_rolling_deploy_that_is_given_up_tells_why() -> None:
    (given_up,) = recorded_between(COMING, settled(COMING), at(1), called=False, reason="it exited with code 1")
    assert given_up.reason == "it exited with code 1"
    replaced, _ = recorded_between(COMING, replace(COMING, next_revision_id="r3"), at(1), called=True)
    assert replaced.reason is not None
    assert "replaced" in replaced.reason


def test_an_event_is_its_last_call_s_that_can_have_caused_it() -> None:
    calls = [
        row(1, 0, "Apps.UpdateApplication", "", "scales"),
        row(2, 1, "Revisions.RegisterApplication", "", "deploys"),
        row(3, 2, "Apps.SetAlias", "alias=hello, revision=r9", "moves"),
        row(4, 3, "Revisions.BuildEnvironment", "", "builds"),
        row(5, 60, "Apps.UpdateApplication", "", "later"),
    ]

    def caller(before, after, called=True):
        return [of_recorded(one, calls).key_id for one in recorded_between(before, after, at(5), called=called)]

    assert caller(HELLO, SCALED) == ["scales"]
    assert caller(HELLO, COMING) == ["deploys"]
    assert caller(HELLO, replace(HELLO, next_revision_id="r9")) == ["moves"]
    assert caller(COMING, settled(COMING, revision_id="r2"), called=False) == [None]
    assert of_recorded(failed_deploy(APP, at(5), "why"), calls).key_id == "builds"
    assert of_recorded(failed_deploy(APP, at(-5), "why"), calls).key_id is None
