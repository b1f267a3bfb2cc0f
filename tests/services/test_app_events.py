"""An app's events from three kinds of rows: ordered, in pages of any size, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.app_events import AppChange, Category, EventPlace, app_of, deployer_of, named_in, of_runner
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
    """A store and an audit log of rows in memory, with the order and the limits of the real ones."""

    def __init__(self, changes: Sequence[AppChange], revisions: Sequence[Any], audit: Sequence[AuditRow]) -> None:
        self.changes, self.revisions, self.audit = changes, revisions, audit

    async def app_changes(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, str, int] | None, limit: int
    ) -> list[AppChange]:
        def place(found: AppChange) -> tuple[datetime, str, int]:
            return found.change.at, found.change.runner_id, found.number

        chosen = [one for one in self.changes if since <= one.change.at < until]
        return sorted((one for one in chosen if before is None or place(one) < before), key=place, reverse=True)[:limit]

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
ACTIONS = ("Apps.UpdateApplication", "Revisions.RegisterApplication", "Secrets.SetSecret")
AUDIT = st.lists(st.tuples(SECONDS, st.sampled_from(ACTIONS), st.sampled_from(["hello", "other"])), max_size=8)


@given(CHANGES, st.lists(SECONDS, max_size=4), AUDIT, st.integers(1, 5), st.booleans())
async def test_pages_together_are_the_whole(changes, revisions, audit, limit, only_runners) -> None:
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
        assert len(whole) == len(changes) + len(revisions) + len(mine)
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
