"""Two accounts have the same app name. Each sees, calls, queues and scales only its own."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal_server.access.permissions import CALL_APPS, require_app
from fal_server.access.runner_keys import RunnerKeys
from fal_server.core.apps import App
from fal_server.core.faults import NotFound
from fal_server.core.identity import LOCAL, AccountId, AppId, Principal, Scope
from fal_server.core.machines import MachineTypes
from fal_server.core.queue import State
from fal_server.services.environments import Environments
from fal_server.services.gpus import Gpus
from fal_server.services.submission import Submission
from tests.fakes.domain import SCOPE, make_app, make_revision
from tests.fakes.platform import OTHER, Platform, opened, running
from tests.fakes.queueing import queueing

THEIRS = Scope(account=OTHER, permissions=frozenset({"*"}))
MINE_ID, THEIRS_ID = AppId.parse(LOCAL, "a"), AppId.parse(OTHER, "a")


async def add(platform: Platform, account: AccountId, **settings: Any) -> App:
    """Add an app named `a` to an account."""
    revision = make_revision(f"r-{account}", account=account, **settings)
    app = make_app("a", revision.revision_id, account=account, scaling=revision.scaling)
    return await platform.catalog.register(revision, lambda before: app)


@pytest.fixture
async def two(tmp_path: Path):
    async with opened(tmp_path) as platform:
        for account in (LOCAL, OTHER):
            await Environments(platform.store, platform.clock).bootstrap(account)
        async with running(platform):
            yield platform


async def test_the_catalog_keeps_both_and_forgets_one(two: Platform) -> None:
    mine, theirs = await add(two, LOCAL), await add(two, OTHER)
    assert (two.catalog.get(MINE_ID), two.catalog.get(THEIRS_ID)) == (mine, theirs)
    await two.apps.update(SCOPE, "a", "", {"max_concurrency": 7})
    assert two.catalog.require(THEIRS_ID) == theirs
    for scope in (SCOPE, THEIRS):
        assert [view.app.account for view in await two.apps.list(scope, None)] == [scope.account]
    await two.apps.delete(SCOPE, "a", "")
    assert two.catalog.require(THEIRS_ID) == theirs
    with pytest.raises(NotFound, match="app 'a' not found"):
        two.catalog.require(MINE_ID)
    await two.catalog.load()
    assert [app.app_id for app in two.catalog.apps] == [THEIRS_ID]


async def test_requests_start_and_reach_runners_of_their_own_account(two: Platform) -> None:
    await add(two, LOCAL)
    await add(two, OTHER)
    lease = await two.ask()
    [runner] = two.fleet.runners
    assert (runner.app_id, lease.runner_id) == (MINE_ID, runner.runner_id)
    assert two.dispatcher.try_acquire(THEIRS_ID, request_id="t", caller=None, hint=None) is None
    assert list(two.fleet.slots(THEIRS_ID)) == []
    assert (two.fleet.active(MINE_ID), two.fleet.active(THEIRS_ID)) == (1, 0)
    assert (
        two.dispatcher.load(two.app()).in_flight,
        two.dispatcher.load(two.catalog.require(THEIRS_ID)).in_flight,
    ) == (1, 0)
    other = await two.dispatcher.acquire(THEIRS_ID, request_id="t", caller=None, hint=None, start_timeout=None)
    assert {r.app_id for r in two.fleet.runners} == {MINE_ID, THEIRS_ID}
    assert other.runner_id != lease.runner_id
    for scope, held in ((SCOPE, lease), (THEIRS, other)):
        page = await two.runners.page(scope, "a", "", since=None, include_pending=True, size=9, token="")
        assert [view.runner.runner_id for view in page.views] == [held.runner_id]
        assert Gpus(two.fleet, two.catalog, MachineTypes()).gpus_by_app(scope) == {"a": {"XS": 1}}
        assert {decided.action for decided in (await two.explainer.explain(scope, "a", "")).decisions} == {"start"}


async def test_scaling_and_failed_starts_are_counted_for_each(two: Platform) -> None:
    await add(two, LOCAL, min_concurrency=2, max_concurrency=3)
    await add(two, OTHER, min_concurrency=1, max_concurrency=3)
    await two.until(lambda: two.fleet.active(MINE_ID) == 2 and two.fleet.active(THEIRS_ID) == 1)
    [theirs] = two.fleet.of_app(THEIRS_ID)
    two.engine.start_as = two.engine.start_as.ENDS
    await two.runners.kill(THEIRS, theirs.runner_id)
    await two.until(lambda: two.fleet.failures(THEIRS_ID, "r-other").count == 1)
    assert two.fleet.failures(MINE_ID, "r-local").count == 0
    assert two.fleet.active(MINE_ID) == 2
    await two.apps.delete(THEIRS, "a", "")
    await two.until(lambda: not two.fleet.of_app(THEIRS_ID))
    assert two.fleet.active(MINE_ID) == 2


async def test_each_queue_is_its_own(two: Platform) -> None:
    await add(two, LOCAL)
    await add(two, OTHER)
    async with queueing(two) as q:
        q.client.held.clear()
        made = {
            app: (await q.queue.submit(Submission(app_id=app, path="/"))).request.request_id
            for app in (MINE_ID, THEIRS_ID)
        }
        await q.until(lambda: len(q.client.sent) == 2)
        sent = {request.app_id: request.runner_id for request, _ in q.client.sent}
        assert {app: two.runner(runner_id or "").app_id for app, runner_id in sent.items()} == {
            app: app for app in sent
        }
        waiting = await q.queue.submit(Submission(app_id=THEIRS_ID, path="/", start_seconds=None))
        assert q.queue.size(MINE_ID) == {}
        with pytest.raises(NotFound):
            await q.queue.status(MINE_ID, made[THEIRS_ID])
        with pytest.raises(NotFound):
            await q.queue.cancel(MINE_ID, waiting.request.request_id)
        assert await q.queue.flush(MINE_ID) == 0
        assert {live.request.app_id for live in q.backlog.of_app(THEIRS_ID)} == {THEIRS_ID}
        q.client.held.set()
        assert (await q.completed(made[MINE_ID])).state is State.COMPLETED


async def test_the_gateway_finds_an_app_by_its_accounts_name_and_keys_open_only_their_own(two: Platform) -> None:
    await add(two, LOCAL)
    assert two.dispatcher.find("you", "a") is None
    await add(two, OTHER)
    mine, theirs = two.dispatcher.find("me", "a"), two.dispatcher.find("you", "a")
    assert mine is not None
    assert theirs is not None
    assert (mine.app_id, theirs.app_id) == (MINE_ID, THEIRS_ID)
    assert two.dispatcher.find("me", "a") is mine
    caller = Principal(key_id="k", scope=replace(SCOPE, permissions=frozenset({CALL_APPS})))
    require_app(caller, MINE_ID)
    with pytest.raises(NotFound, match="key k reaches none"):
        require_app(caller, THEIRS_ID)


async def test_watchers_of_apps_see_their_own_accounts_alone(two: Platform) -> None:
    await add(two, LOCAL)
    await add(two, OTHER)
    async with aclosing(two.apps.watch(SCOPE, "", "")) as mine, aclosing(two.apps.watch(THEIRS, "", "")) as theirs:
        assert [view.app.app_id for view in (await anext(mine)).rows] == [MINE_ID]
        version = (await anext(theirs)).version
        await two.apps.delete(SCOPE, "a", "")
        removed: list[AppId] = []
        while not removed:
            removed = [view.app.app_id for view in (await anext(mine)).removed]
        assert removed == [MINE_ID]
    async with aclosing(two.apps.watch(THEIRS, "", version)) as again:
        changes = await anext(again)
        assert (changes.snapshot, list(changes.removed)) == (False, [])


async def test_a_runners_key_is_of_its_account(two: Platform) -> None:
    await add(two, LOCAL)
    await add(two, OTHER)
    keys = RunnerKeys(bytes(32), two.fleet.account_of)
    for app in (MINE_ID, THEIRS_ID):
        lease = await two.dispatcher.acquire(app, request_id="r", caller=None, hint=None, start_timeout=None)
        caller = keys.caller(*keys.key_of(lease.runner_id))
        assert caller is not None
        require_app(caller, app)
        with pytest.raises(NotFound):
            require_app(caller, THEIRS_ID if app == MINE_ID else MINE_ID)
    assert keys.caller(*keys.key_of("nobody")) is None
