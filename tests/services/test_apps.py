"""Apps and their revisions: list, scale, move, roll out, delete."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fal_server.core.apps import AuthMode, Strategy
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.identity import LOCAL
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired
from fal_server.services.environments import Environments
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform


async def ready(platform: Platform, count: int = 1) -> None:
    await platform.until(lambda: sum(r.routable for r in platform.fleet.runners) == count)


async def test_list_shows_apps_by_name_with_their_runners(platform: Platform) -> None:
    await platform.deploy("b")
    await platform.deploy("a", scaling={"min_concurrency": 2})
    await ready(platform, 2)
    views = await platform.apps.list(SCOPE, None)
    assert [(v.app.name, v.active_runners, v.is_rolling) for v in views] == [("a", 2, False), ("b", 0, False)]
    await Environments(platform.store, platform.clock).create(SCOPE, "other", None)
    assert await platform.apps.list(SCOPE, "other") == []


@pytest.mark.parametrize("environment", ["main", "there", "nowhere"])
async def test_a_missing_environment_is_reported_before_a_missing_app(platform: Platform, environment: str) -> None:
    await Environments(platform.store, platform.clock).create(SCOPE, "there", None)
    message = "environment 'nowhere' not found" if environment == "nowhere" else r"app 'none\b.*not found"
    for asked in (
        platform.apps.update(SCOPE, "none", environment, {}),
        platform.apps.rollout(SCOPE, "none", environment, force=False),
        platform.apps.delete(SCOPE, "none", environment),
        platform.revisions.list(SCOPE, "none", environment),
    ):
        with pytest.raises(NotFound, match=message):
            await asked
    for listing in (platform.apps.list(SCOPE, environment), platform.revisions.list(SCOPE, None, environment)):
        if environment == "nowhere":
            with pytest.raises(NotFound, match=message):
                await listing
        else:
            assert list(await listing) == []


async def test_update_changes_only_the_given_settings_and_is_stored(platform: Platform) -> None:
    await platform.deploy(scaling={"keep_alive": 60, "request_start_timeout": 9})
    view = await platform.apps.update(SCOPE, "a", "", {"max_concurrency": 5, "request_start_timeout": 0})
    assert (view.app.scaling.keep_alive, view.app.scaling.max_concurrency) == (60, 5)
    assert view.app.scaling.request_start_timeout is None
    assert await platform.store.get_app(LOCAL, "a") == view.app


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, "speed is not a scaling setting"),
        ({"min_concurrency": 9}, "above max_concurrency 2"),
        ({"machine_types": ("HUGE",)}, "'HUGE' is unknown"),
        ({"machine_types": ()}, "at least one"),
        ({"max_multiplexing": 0}, "between 1 and"),
    ],
)
async def test_wrong_settings_change_nothing(platform: Platform, changes: dict, message: str) -> None:
    before = (await platform.deploy()).app
    with pytest.raises(InvalidArgument, match=message):
        await platform.apps.update(SCOPE, "a", "", changes)
    assert platform.app() == before


async def test_concurrent_changes_do_not_undo_each_other(platform: Platform) -> None:
    await platform.deploy()
    await asyncio.gather(
        platform.apps.update(SCOPE, "a", "", {"keep_alive": 33}),
        platform.apps.update(SCOPE, "a", "", {"max_concurrency": 8}),
        platform.apps.update(SCOPE, "a", "", {"request_timeout": 44}),
        platform.deploy(auth_mode=AuthMode.PUBLIC, strategy=Strategy.RECREATE),
    )
    app = platform.app()
    assert (app.scaling.keep_alive, app.scaling.max_concurrency, app.scaling.request_timeout) == (33, 8, 44)
    assert app.auth_mode is AuthMode.PUBLIC
    assert await platform.store.get_app(LOCAL, "a") == app


async def test_a_change_whose_caller_hangs_up_is_completed(platform: Platform) -> None:
    await platform.deploy()
    calling = asyncio.create_task(platform.apps.update(SCOPE, "a", "", {"keep_alive": 33}))
    await asyncio.sleep(0)
    calling.cancel()
    await platform.until(lambda: platform.app().scaling.keep_alive == 33)
    assert await platform.store.get_app(LOCAL, "a") == platform.app()


async def test_rolling_back(platform: Platform) -> None:
    first = await platform.deploy(scaling={"max_multiplexing": 2})
    second = await platform.deploy(scaling={"max_multiplexing": 3})
    view = await platform.apps.set_revision(SCOPE, "a", "", first.revision_id, auth_mode=None, strategy=None)
    assert view.is_rolling
    assert view.app.revision_id == second.revision_id
    await platform.until(lambda: platform.app().revision_id == first.revision_id)
    assert platform.app().scaling.max_multiplexing == 2


async def test_set_revision_recreate_moves_at_once(platform: Platform) -> None:
    first = await platform.deploy()
    await platform.deploy()
    view = await platform.apps.set_revision(
        SCOPE, "a", "", first.revision_id, auth_mode=AuthMode.PUBLIC, strategy=Strategy.RECREATE
    )
    assert (view.app.revision_id, view.app.auth_mode) == (first.revision_id, AuthMode.PUBLIC)


async def test_a_revision_of_another_app_is_refused(platform: Platform) -> None:
    await platform.deploy("a")
    other = await platform.deploy("b")
    for name in ("a", "c"):
        with pytest.raises(NotFound, match="it is one of 'b'"):
            await platform.apps.set_revision(SCOPE, name, "", other.revision_id, auth_mode=None, strategy=None)
    with pytest.raises(NotFound, match="fal apps list-rev a"):
        await platform.apps.set_revision(SCOPE, "a", "", "unknown", auth_mode=None, strategy=None)
    assert platform.catalog.get(app_id("c")) is None


async def test_a_revision_that_failed_once_is_tried_when_asked_for(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.ENDS
    with pytest.raises(FailedPrecondition):
        await platform.deploy()
    failed = next(r.revision_id for r in await platform.store.list_revisions(LOCAL, "a", None))
    platform.engine.start_as = Start.READY
    await platform.apps.set_revision(SCOPE, "a", "", failed, auth_mode=None, strategy=None)
    await platform.until(lambda: platform.app().revision_id == failed)


async def test_a_rollout_replaces_one_after_the_other_without_a_gap(platform: Platform) -> None:
    await platform.deploy(scaling={"min_concurrency": 3, "max_concurrency": 3})
    await ready(platform, 3)
    old = {r.runner_id for r in platform.fleet.runners}
    await platform.apps.rollout(SCOPE, "a", "", force=False)
    [view] = await platform.apps.list(SCOPE, None)
    assert view.is_rolling
    least = 3
    while any(r.runner_id in old for r in platform.fleet.runners):
        least = min(least, len(list(platform.fleet.slots(app_id("a")))))
        await platform.changed.wait(platform.changed.count, 1)
    assert least == 3
    await platform.until(lambda: len(platform.fleet.runners) == 3)
    assert platform.engine.most_alive <= 4
    [view] = await platform.apps.list(SCOPE, None)
    assert not view.is_rolling


async def test_a_forced_rollout_is_at_once(platform: Platform) -> None:
    await platform.deploy(scaling={"min_concurrency": 2})
    await ready(platform, 2)
    old = {r.runner_id for r in platform.fleet.runners}
    busy = await platform.get()
    await platform.apps.rollout(SCOPE, "a", "", force=True)
    assert not list(platform.fleet.slots(app_id()))
    await platform.until(lambda: platform.fleet.get(busy.runner_id) is None)
    await platform.until(lambda: len({r.runner_id for r in platform.fleet.runners if r.routable} - old) == 2)


async def test_a_rollout_ends_the_wait_after_failed_starts(platform: Platform) -> None:
    platform.engine.start_as = Start.ENDS
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: any(r.state == "failure_delay" for r in platform.fleet.runners))
    platform.engine.start_as = Start.READY
    await platform.apps.rollout(SCOPE, "a", "", force=False)
    await ready(platform)


async def test_an_app_carries_why_its_starts_fail_until_one_succeeds(platform: Platform) -> None:
    platform.engine.start_as = Start.ENDS
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: any(r.state == "failure_delay" for r in platform.fleet.runners))
    (app,) = await platform.apps.list(SCOPE, "")
    assert (app.failures.count, app.failures.reason) == (1, "setup() raised ValueError")
    assert app.failures.runner_id == platform.engine.launched[0].runner_id
    platform.engine.start_as = Start.READY
    platform.clock.advance(31)
    await ready(platform)
    (app,) = await platform.apps.list(SCOPE, "")
    assert app.failures.count == 0


async def test_delete_lets_the_runners_finish(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    await platform.apps.delete(SCOPE, "a", "")
    assert platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller=None, hint=None) is None
    await platform.until(lambda: platform.runner(lease.runner_id).state == "draining")
    platform.dispatcher.release(lease, Outcome.DONE)
    await platform.until(lambda: not platform.fleet.runners)
    assert await platform.store.get_app(LOCAL, "a") is None
    with pytest.raises(NotFound, match="fal apps list"):
        await platform.apps.delete(SCOPE, "a", "")


async def test_revisions_are_listed_newest_first_and_deleted_when_unused(platform: Platform) -> None:
    first = await platform.deploy()
    platform.clock.advance(1)
    second = await platform.deploy(scaling={"min_concurrency": 1})
    await ready(platform)
    views = await platform.revisions.list(SCOPE, "a", None)
    assert [(v.revision.revision_id, v.active_runners) for v in views] == [
        (second.revision_id, 1),
        (first.revision_id, 0),
    ]
    with pytest.raises(FailedPrecondition, match="serves app 'a'"):
        await platform.revisions.delete(SCOPE, second.revision_id)
    await platform.revisions.delete(SCOPE, first.revision_id)
    for call in (
        lambda: platform.revisions.delete(SCOPE, first.revision_id),
        lambda: platform.apps.set_revision(SCOPE, "a", "", first.revision_id, auth_mode=None, strategy=None),
        lambda: platform.revisions.list(SCOPE, "unknown", None),
    ):
        with pytest.raises(NotFound):
            await call()


async def test_a_revision_that_an_app_moves_to_cannot_be_deleted(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    coming = await platform.deploy(attach=False)
    with pytest.raises(FailedPrecondition):
        await platform.revisions.delete(SCOPE, coming.revision_id)


async def test_revisions_that_nothing_names_are_not_kept_in_memory(platform: Platform) -> None:
    first = await platform.deploy()
    for _ in range(5):
        await platform.deploy(strategy=Strategy.RECREATE)
    platform.clock.advance(61)
    await platform.reconciler.tick()
    assert platform.catalog.known_revision(first.revision_id) is None
    assert await platform.catalog.find_revision(LOCAL, first.revision_id) is not None


async def test_a_draining_runner_is_not_wanted_again(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    await platform.fleet.drain(lease.runner_id, "why")
    drained = await platform.fleet.drain(lease.runner_id, "another")
    assert drained is not None
    assert (drained.desired, drained.reason) == (Desired.DRAIN, "why")
    assert replace(drained, desired=Desired.SERVE).routable is (drained.state == "idle")
