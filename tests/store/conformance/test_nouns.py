"""The promises of the Store port, method by method."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from fal_server.core.app_events import Category, failed_deploy, recorded_between
from fal_server.core.apps import AuthMode
from fal_server.core.faults import AlreadyExists, FailedPrecondition
from fal_server.core.history import StateChange
from fal_server.core.identity import LOCAL, AccountId, AppId
from fal_server.core.runners import RunnerState
from fal_server.store.sql.tables import RUNNERS
from tests.store import strategies as some


async def test_each_start_has_a_higher_epoch(reopen):
    first = await reopen()
    assert [await first.next_epoch(), await first.next_epoch()] == [1, 2]
    await first.close()
    again = await reopen()
    assert await again.next_epoch() == 3


async def test_register_writes_revision_and_app(store):
    await store.register(some.revision("r1"), some.app("hello", "r1"))
    await store.register(some.revision("r2", at=1), some.app("hello", "r2"))
    assert (await store.get_app(LOCAL, "hello")).revision_id == "r2"
    assert [r.revision_id for r in await store.list_revisions(LOCAL, "hello", None)] == ["r2", "r1"]


async def test_register_is_both_or_neither(store):
    with pytest.raises(FailedPrecondition, match="'hello'"):
        await store.register(some.revision("r1"), some.app("hello", "elsewhere"))
    assert await store.get_revision(LOCAL, "r1") is None
    await store.register(some.revision("r1"), some.app("hello", "r1"))
    changed = replace(some.app("hello", "r1"), environment="main", updated_at=some.later(9))
    with pytest.raises(AlreadyExists, match="'r1'"):
        await store.register(some.revision("r1"), changed)
    assert (await store.get_app(LOCAL, "hello")).updated_at == some.START


async def test_revisions_come_page_by_page(store):
    for number in (3, 1, 5, 2, 4):
        await some.add_revision(store, some.revision(f"r{number}"))
    pages, last = [], ""
    while page := await store.page_revisions(LOCAL, last, 2):
        pages.append([revision.revision_id for revision in page])
        last = pages[-1][-1]
    assert pages == [["r1", "r2"], ["r3", "r4"], ["r5"]]


async def test_revisions_are_found_by_app_and_environment(store):
    await some.add_revision(store, some.revision("r1", app_name="a", at=1))
    await some.add_revision(store, some.revision("r2", app_name="b", at=3))
    await some.add_revision(store, some.revision("r3", app_name="a", environment="dev", at=2))

    async def ids(app_name, environment):
        return [r.revision_id for r in await store.list_revisions(LOCAL, app_name, environment)]

    assert await ids(None, None) == ["r2", "r3", "r1"]
    assert await ids("a", None) == ["r3", "r1"]
    assert await ids("a", "dev") == ["r3"]
    assert await ids("a", "none") == []


async def test_a_revision_in_use_stays(store):
    await store.register(some.revision("r1"), some.app("hello", "r1"))
    with pytest.raises(FailedPrecondition, match="'r1' is in use"):
        await store.delete_revision(LOCAL, "r1")
    assert await store.delete_app(LOCAL, "hello") == some.app("hello", "r1")
    assert await store.delete_app(LOCAL, "hello") is None
    assert await store.delete_revision(LOCAL, "r1")
    assert not await store.delete_revision(LOCAL, "r1")
    assert await store.get_revision(LOCAL, "r1") is None


async def test_apps_are_listed_by_name(store):
    await store.add_environment(some.environment("dev"))
    await store.register(some.revision("r1"), some.app("b", "r1"))
    await store.register(some.revision("r2"), some.app("a", "r2"))
    await store.register(some.revision("r3"), some.app("c--dev", "r3", environment="dev"))
    assert [app.name for app in await store.list_apps(LOCAL, None)] == ["a", "b", "c--dev"]
    assert [app.name for app in await store.list_apps(LOCAL, "main")] == ["a", "b"]
    assert await store.list_apps(LOCAL, "none") == []
    assert await store.get_app(LOCAL, "none") is None


async def test_runners_are_saved_all_or_none(store):
    await store.save_runners([])
    await store.save_runners([some.runner("a"), some.runner("b")])
    naive = replace(some.runner("d"), created_at=some.START.replace(tzinfo=None))
    with pytest.raises(Exception, match="naive"):
        await store.save_runners([replace(some.runner("a"), reason="changed"), some.runner("c"), naive])
    assert await store.get_runner(LOCAL, "c") is None
    assert (await store.get_runner(LOCAL, "a")).reason == ""


async def test_of_two_copies_of_a_runner_the_later_stays(store):
    await store.save_runners([some.runner("a"), replace(some.runner("a"), reason="later")])
    assert (await store.get_runner(LOCAL, "a")).reason == "later"


async def test_ended_runners_are_listed_on_demand_and_forgotten(store):
    old, new = some.runner("old", at=1, ended_at=10), some.runner("new", at=2, ended_at=20)
    live = some.runner("live", at=0)
    await store.save_runners([new, old, live])
    assert await store.list_runners(LOCAL, None) == [live]
    assert await store.list_runners(LOCAL, some.later(20)) == [live, replace(new, token="")]
    assert await store.list_runners(LOCAL, some.later(0)) == [live, replace(old, token=""), replace(new, token="")]
    assert await store.forget_runners(some.later(20)) == 1
    assert await store.forget_runners(some.later(20)) == 0
    assert await store.get_runner(LOCAL, "old") is None
    assert await store.get_runner(LOCAL, "new") == new
    assert await store.get_runner(LOCAL, "live") == live


async def test_a_token_that_cannot_be_opened_hides_no_runner(store, caplog):
    made = [some.runner("ended", at=0, ended_at=10), some.runner("live", at=1), some.runner("well", at=2)]
    await store.save_runners(made)
    damaged = update(RUNNERS).where(RUNNERS.c.runner_id != "well").values(sealed_token=b"damaged")
    await store._database.write(lambda connection: connection.execute(damaged))
    assert await store.list_runners(LOCAL, some.later(0)) == [*(replace(r, token="") for r in made[:2]), made[2]]
    assert [record.message.partition(" cannot")[0] for record in caplog.records] == ["the token of runner live"]
    assert await store.get_runner(LOCAL, "ended") == replace(made[0], token="")


async def test_many_runners_are_listed_in_order(store):
    made = [some.runner(f"r{number:04}", at=number, ended_at=number) for number in range(1100)]
    await store.save_runners(made)
    assert await store.list_runners(LOCAL, some.later(0)) == [replace(runner, token="") for runner in made]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_of_ended_runners_are_the_whole_once(store, size):
    ended = [replace(some.runner(f"r{n}", at=n, ended_at=20 - n // 3), app_name=("x", "y")[n % 2]) for n in range(12)]
    await store.save_runners([*ended, some.runner("live", at=0)])
    for since, app in ((0, None), (18, None), (0, "x"), (30, None)):
        expected = [r for r in ended if r.ended_at and r.ended_at >= some.later(since) and app in {None, r.app_name}]
        app_id = None if app is None else AppId.parse(LOCAL, app)
        found, after = [], (some.later(since), "")
        while page := await store.page_ended_runners(LOCAL, some.later(since), app_id, after, size):
            assert len(page) <= size
            found += page
            after = (page[-1].ended_at, page[-1].runner_id)
        expected.sort(key=lambda r: (r.ended_at, r.runner_id))
        assert found == [replace(r, token="") for r in expected]


async def test_keys_are_revoked_once(store):
    await store.add_key(some.key("k2", at=2))
    await store.add_key(some.key("k1", at=1))
    with pytest.raises(AlreadyExists, match="'k1'"):
        await store.add_key(some.key("k1"))
    assert [key.key_id for key in await store.list_keys(LOCAL)] == ["k1", "k2"]
    assert await store.revoke_key(LOCAL, "k1", some.later(5))
    assert not await store.revoke_key(LOCAL, "k1", some.later(6))
    assert not await store.revoke_key(LOCAL, "none", some.later(6))
    assert [key.key_id for key in await store.list_keys(LOCAL)] == ["k2"]
    assert (await store.get_key(LOCAL, "k1")).revoked_at == some.later(5)


async def test_secrets_are_replaced_listed_deleted(store):
    await store.add_environment(some.environment("dev"))
    await store.save_secret(some.secret("B"))
    await store.save_secret(some.secret("A", environment="dev"))
    await store.save_secret(some.secret("A"))
    await store.save_secret(some.secret("B", b"changed"))
    assert [(s.environment, s.name, s.sealed) for s in await store.list_secrets(LOCAL, None)] == [
        ("dev", "A", b"\x01sealed"),
        ("main", "A", b"\x01sealed"),
        ("main", "B", b"changed"),
    ]
    assert [s.name for s in await store.list_secrets(LOCAL, "main")] == ["A", "B"]
    assert await store.delete_secret(LOCAL, "main", "A")
    assert not await store.delete_secret(LOCAL, "main", "A")
    assert [s.name for s in await store.list_secrets(LOCAL, "main")] == ["B"]
    with pytest.raises(FailedPrecondition, match="'none' does not exist"):
        await store.save_secret(some.secret("A", environment="none"))


async def test_main_is_there_from_the_start(store):
    (main,) = await store.list_environments(LOCAL)
    assert (main.name, main.is_default, main.created_at.tzinfo is not None) == ("main", True, True)


async def test_environments_take_their_secrets_along(store):
    for name in ("dev", "alpha"):
        assert await store.add_environment(some.environment(name))
    assert not await store.add_environment(replace(some.environment("dev"), description="again"))
    assert (await store.get_environment(LOCAL, "dev")).description is None
    assert [e.name for e in await store.list_environments(LOCAL)] == ["main", "alpha", "dev"]
    await store.save_secret(some.secret("A", environment="dev"))
    assert await store.delete_environment(LOCAL, "dev")
    assert not await store.delete_environment(LOCAL, "dev")
    assert await store.get_environment(LOCAL, "dev") is None
    await store.add_environment(some.environment("dev"))
    assert await store.list_secrets(LOCAL, "dev") == []


async def test_an_environment_with_apps_stays(store):
    await store.add_environment(some.environment("dev"))
    await store.register(some.revision("r1"), some.app("hello--dev", "r1", environment="dev"))
    with pytest.raises(FailedPrecondition, match="'dev' still has apps"):
        await store.delete_environment(LOCAL, "dev")
    assert await store.get_environment(LOCAL, "dev") is not None


async def test_what_a_runner_went_through_is_kept_in_order_and_goes_with_it(store):
    def change(runner_id, seconds, state):
        return StateChange(runner_id=runner_id, at=some.later(seconds), state=state, reason=f"after {seconds}")

    first = [change("a", 1, RunnerState.PENDING), change("b", 1, RunnerState.PENDING)]
    await store.save_runners([some.runner("a"), some.runner("b")], first)
    more = [change("a", 2, RunnerState.PENDING), change("a", 3, RunnerState.TERMINATED)]
    await store.save_runners([some.runner("a", ended_at=3)], more)
    assert await store.runner_history(LOCAL, "a") == [first[0], *more]
    assert await store.runner_history(LOCAL, "b") == [first[1]]
    assert await store.runner_history(LOCAL, "c") == []
    assert await store.forget_runners(some.later(4)) == 1
    assert await store.runner_history(LOCAL, "a") == []
    assert await store.runner_history(LOCAL, "b") == [first[1]]


async def test_a_change_is_kept_only_with_its_runner(store):
    stray = StateChange(runner_id="nobody", at=some.START, state=RunnerState.PENDING)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await store.save_runners([some.runner("a")], [stray])
    assert await store.get_runner(LOCAL, "a") is None


async def test_what_an_app_went_through_is_paged_newest_first(store):
    def change(runner_id, seconds, state):
        return StateChange(runner_id=runner_id, at=some.later(seconds), state=state, reason=f"after {seconds}")

    runners = [some.runner("a"), some.runner("b"), replace(some.runner("c"), app_name="other")]
    changes = [change(each, seconds, RunnerState.PENDING) for each in "abc" for seconds in (1, 2, 2)]
    await store.save_runners(runners, changes)
    app_id, end = runners[0].app_id, some.later(9)
    found = await store.app_changes(app_id, some.START, end, None, 100)
    assert [(each.change.at, each.change.runner_id, each.number) for each in found] == [
        (some.later(seconds), runner_id, number)
        for seconds, runner_id, number in [(2, "b", 3), (2, "b", 2), (2, "a", 3), (2, "a", 2), (1, "b", 1), (1, "a", 1)]
    ]
    assert {each.runner.runner_id for each in found} == {"a", "b"}
    assert {each.runner.token for each in found} == {""}
    paged, before = [], None
    while page := await store.app_changes(app_id, some.START, end, before, 1):
        paged += page
        before = (page[0].change.at, page[0].change.runner_id, page[0].number)
    assert paged == found
    assert await store.app_changes(app_id, some.later(2), some.later(2), None, 9) == []
    assert len(await store.app_changes(app_id, some.later(2), end, None, 9)) == 4
    assert len(await store.app_changes(app_id, some.START, some.later(2), None, 9)) == 2
    assert await store.app_changes(replace(app_id, account=AccountId("other")), some.START, end, None, 9) == []


async def test_recorded_events_of_an_app_are_paged_newest_first(store):
    first, second = some.app("hello", "r1"), some.app("hello", "r2")
    moved = recorded_between(first, replace(second, auth_mode=AuthMode.PUBLIC), some.later(1), called=True)
    await store.register(some.revision("r1"), first)
    await store.register(some.revision("r2", at=1), second, moved)
    app_id, end = first.app_id, some.later(9)
    await store.record_event(failed_deploy(app_id, some.later(3), "no such package"))
    await store.save_app(second, recorded_between(first, second, some.later(2), called=False))
    await store.record_event(failed_deploy(replace(app_id, account=AccountId("other")), some.later(3), "another's"))
    found = await store.recorded_events(app_id, some.START, end, None, 100)
    assert [(one.category, one.number, one.called) for one in found] == [
        (Category.DEPLOYMENT_FAILED, 3, True),
        (Category.DEPLOYMENT_RECREATE_APPLIED, 4, False),
        (Category.CONFIG_CHANGED, 2, True),
        (Category.DEPLOYMENT_RECREATE_APPLIED, 1, True),
    ]
    assert found[0].reason == "no such package"
    assert [replace(one, number=0) for one in found[:1:-1]] == moved
    paged, before = [], None
    while page := await store.recorded_events(app_id, some.START, end, before, 1):
        paged += page
        before = (page[0].at, page[0].number)
    assert paged == found
    assert await store.recorded_events(app_id, some.later(2), some.later(3), None, 9) == found[1:2]
    assert await store.forget_events(some.later(3)) == 3
    assert await store.recorded_events(app_id, some.START, end, None, 9) == found[:1]


async def test_an_app_that_cannot_be_saved_gets_no_event(store):
    before, after = some.app("hello", "r1"), some.app("hello", "nowhere")
    with pytest.raises(FailedPrecondition):
        await store.save_app(after, recorded_between(before, after, some.later(1), called=True))
    assert await store.recorded_events(before.app_id, some.START, some.later(9), None, 9) == []
