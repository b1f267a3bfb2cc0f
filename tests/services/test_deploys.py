"""Deploys: checks before any change, kept settings, and an app's move."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fal_server.core.accounts import Environment
from fal_server.core.apps import AuthMode, Strategy
from fal_server.core.faults import Aborted, FailedPrecondition, Fault, InvalidArgument, NotFound
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import AppFile
from fal_server.core.runners import RunnerState
from fal_server.services.views import Built, Deployed, Registered
from fal_server.store.files.app_files import DiskAppFiles
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform, code_request, deploy_request


async def test_the_first_deploy_creates_the_app_and_streams_the_build(platform: Platform) -> None:
    request = deploy_request(scaling={"keep_alive": 60, "max_multiplexing": 4}, metadata={"openapi": {}})
    *lines, last = [event async for event in platform.deploys.deploy(SCOPE, request)]
    assert [line.message for line in lines if isinstance(line, LogEntry)] == ["resolving", "installing"]
    app = platform.app()
    assert isinstance(last, Deployed)
    assert last.app == app
    assert last.urls.run == "http://here/a"
    assert (app.auth_mode, app.scaling.keep_alive, app.scaling.max_multiplexing) == (AuthMode.PRIVATE, 60, 4)
    assert await platform.store.get_app(LOCAL, "a") == app
    stored = await platform.store.get_revision(LOCAL, last.revision_id)
    assert stored is not None
    assert stored.metadata == {"openapi": {}}


async def test_a_deploy_says_which_revision_is_stored_and_which_one_it_replaces(platform: Platform) -> None:
    first = [event async for event in platform.deploys.deploy(SCOPE, deploy_request())]
    second = [event async for event in platform.deploys.deploy(SCOPE, deploy_request(strategy=Strategy.RECREATE))]
    (new,) = [event for event in first if isinstance(event, Registered)]
    (next_one,) = [event for event in second if isinstance(event, Registered)]
    assert (new.app_name, new.previous_id) == ("a", None)
    assert next_one.previous_id == new.revision_id
    listed = {view.revision.revision_id: view.current for view in await platform.revisions.list(SCOPE, "a", None)}
    assert listed == {new.revision_id: False, next_one.revision_id: True}


async def test_a_first_runner_is_expected_unless_it_starts_at_once_or_is_replaced(platform: Platform) -> None:
    first = await platform.deploy()
    assert platform.expected == [first.revision_id]
    again = await platform.deploy(strategy=Strategy.RECREATE)
    assert platform.expected == [first.revision_id, again.revision_id]
    await platform.deploy("b", scaling={"min_concurrency": 1})
    await platform.deploy(strategy=Strategy.ROLLING, attach=False)
    assert platform.expected == [first.revision_id, again.revision_id]


async def test_a_later_deploy_keeps_the_settings_but_takes_the_code_s(platform: Platform) -> None:
    await platform.deploy(scaling={"keep_alive": 60, "max_multiplexing": 1}, auth_mode=AuthMode.PUBLIC)
    await platform.apps.update(SCOPE, "a", "", {"max_concurrency": 7})
    await platform.deploy(
        scaling={"keep_alive": 5, "max_multiplexing": 3, "startup_timeout": 44, "machine_types": ("S",)}
    )
    app = platform.app()
    assert (app.scaling.keep_alive, app.scaling.max_concurrency) == (60, 7)
    assert (app.scaling.max_multiplexing, app.scaling.startup_timeout, app.scaling.machine_types) == (3, 44, ("S",))
    assert app.auth_mode is AuthMode.PUBLIC


@pytest.mark.parametrize("strategy", Strategy)
async def test_reset_scale_takes_all_settings_of_the_code(platform: Platform, strategy: Strategy) -> None:
    await platform.deploy(scaling={"keep_alive": 60, "max_concurrency": 9})
    await platform.deploy(scaling={"keep_alive": 5, "max_multiplexing": 3}, reset_scale=True, strategy=strategy)
    scaling = platform.app().scaling
    assert (scaling.keep_alive, scaling.max_concurrency, scaling.max_multiplexing) == (5, 2, 3)


@pytest.mark.parametrize(
    ("changes", "fault", "message"),
    [
        ({"application_name": ""}, InvalidArgument, "application_name is empty"),
        ({"application_name": "a b"}, InvalidArgument, "is not an app's name"),
        ({"environments": ()}, InvalidArgument, "environments is empty"),
        ({"entrypoint": None}, InvalidArgument, "say what to run"),
        ({"function": ("cloudpickle", b"x")}, InvalidArgument, "both function and entrypoint"),
        ({"entrypoint": None, "function": ("cloudpickle", b"")}, InvalidArgument, "function is 0 bytes"),
        ({"entrypoint": None, "function": ("os.system('x')", b"x")}, InvalidArgument, "not a module's name"),
        ({"environment_name": "nowhere"}, NotFound, "fal environments create nowhere"),
        ({"secret_names": ("HAVE", "LACK")}, FailedPrecondition, "lacks: LACK; set them with `fal secrets set`"),
        ({"files": (AppFile(hash="0" * 64, relative_path="x"),)}, FailedPrecondition, "'x' was not uploaded"),
        ({"scaling": {"min_concurrency": -1}}, InvalidArgument, "min_concurrency is -1"),
        ({"scaling": {"machine_types": ("HUGE",)}}, InvalidArgument, "'HUGE' is unknown"),
        ({"scaling": {"speed": 1}}, InvalidArgument, "speed is not a scaling setting"),
        ({"termination_grace_seconds": 31}, InvalidArgument, "between 0 and 30"),
        ({"exposed_port": 70000}, InvalidArgument, "exposed_port is 70000"),
        ({"num_gpus": -1}, InvalidArgument, "num_gpus is -1"),
        ({"env_id": "other"}, InvalidArgument, "env_id is not that of the given environment"),
    ],
)
async def test_invalid_requests_change_nothing(
    platform: Platform, changes: dict, fault: type[Fault], message: str
) -> None:
    await platform.secrets.set(SCOPE, "HAVE", "value")
    before = (await platform.deploy()).app
    with pytest.raises(fault) as raised:
        await platform.deploy(**changes)
    assert message in raised.value.message
    assert platform.app() == before
    assert len(await platform.store.list_revisions(LOCAL, None, None)) == 1


async def test_files_are_looked_for_beside_the_event_loop(platform: Platform, tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    class SlowFiles(DiskAppFiles):
        def missing(self, hashes: Sequence[str]) -> Sequence[str]:
            threads.append(threading.current_thread())
            return []

        def path(self, file_hash: str) -> Path:
            raise AssertionError("a deploy fetches a file")

    platform.app_files_of = lambda _: SlowFiles(tmp_path / "slow")
    await platform.deploy(files=(AppFile(hash="0" * 64, relative_path="x"),))
    assert threads
    assert threading.main_thread() not in threads


async def test_a_failed_build_changes_nothing(platform: Platform) -> None:
    platform.builder.fails = "no matching distribution found for nothing==1"
    with pytest.raises(FailedPrecondition, match="no matching distribution"):
        await platform.deploy()
    assert platform.catalog.get(app_id("a")) is None


async def test_a_build_alone(platform: Platform) -> None:
    events = [event async for event in platform.deploys.build(SCOPE, code_request())]
    assert isinstance(events[-1], Built)
    await platform.deploy()
    assert platform.builder.builds == 1


async def test_nothing_is_built_for_a_missing_environment(platform: Platform) -> None:
    built = platform.builder.builds
    with pytest.raises(NotFound, match="environment 'nowhere' not found"):
        await anext(platform.deploys.build(SCOPE, code_request(environment_name="nowhere", force_build=True)))
    assert platform.builder.builds == built


async def test_an_app_of_another_environment(platform: Platform) -> None:
    made = Environment(account=LOCAL, name="dev", description=None, is_default=False, created_at=platform.clock.now())
    await platform.store.add_environment(made)
    deployed = await platform.deploy(environment_name="dev")
    assert (deployed.app.name, deployed.app.environment) == ("a--dev", "dev")
    await platform.deploy(name="a--dev")
    assert [app.name for app in platform.catalog.apps] == ["a--dev"]


async def test_deploys_of_one_app_come_one_after_the_other_and_the_later_wins(platform: Platform) -> None:
    await platform.deploy()
    async with asyncio.timeout(20):
        done = await asyncio.gather(*(platform.deploy(force_build=True, attach=False) for _ in range(5)))
    assert platform.builder.most_at_once == 1
    last = done[4].revision_id
    await platform.until(lambda: platform.app().revision_id == last)
    assert len(await platform.store.list_revisions(LOCAL, "a", None)) == 6


async def test_a_rolling_deploy_moves_when_the_new_revision_is_ready(platform: Platform) -> None:
    first = await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: any(r.routable for r in platform.fleet.runners))
    old = platform.the_runner()
    platform.engine.start_as = Start.WAITS
    second = asyncio.create_task(platform.deploy())
    await platform.until(lambda: len(platform.engine.alive) == 2)
    assert platform.app().revision_id == first.revision_id
    lease = platform.dispatcher.try_acquire(app_id(), request_id="1", caller=None, hint=None)
    assert lease is not None
    assert lease.runner_id == old.runner_id
    [view] = await platform.apps.list(SCOPE, None)
    assert view.is_rolling
    new = next(r for r in platform.fleet.runners if r.runner_id != old.runner_id)
    platform.engine.ready(new.runner_id)
    async with asyncio.timeout(20):
        done = await second
    assert done.app.revision_id == done.revision_id == platform.app().revision_id
    lease = platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller=None, hint=None)
    assert lease is not None
    assert lease.runner_id == new.runner_id
    await platform.until(lambda: platform.runner(old.runner_id).state is RunnerState.DRAINING)  # it has a request


async def test_a_revision_that_does_not_become_ready_leaves_the_old_one(platform: Platform) -> None:
    first = await platform.deploy(scaling={"max_multiplexing": 2})
    platform.engine.start_as = Start.ENDS
    with pytest.raises(FailedPrecondition) as raised:
        await platform.deploy(scaling={"max_multiplexing": 5})
    assert f"stays on revision {first.revision_id}: setup() raised ValueError" in raised.value.message
    assert f"fal runners logs {platform.engine.launched[0].runner_id}" in raised.value.message
    app = platform.app()
    assert (app.revision_id, app.next_revision_id, app.scaling.max_multiplexing) == (first.revision_id, None, 2)
    platform.engine.start_as = Start.READY
    lease = await platform.get()
    assert platform.runner(lease.runner_id).revision_id == first.revision_id


async def test_a_detached_deploy_returns_at_once(platform: Platform) -> None:
    first = await platform.deploy()
    platform.engine.start_as = Start.WAITS
    second = await platform.deploy(attach=False)
    assert second.app.revision_id == first.revision_id
    assert second.app.next_revision_id == second.revision_id


async def test_a_newer_deploy_ends_the_older_one_that_is_under_way(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    older = asyncio.create_task(platform.deploy())
    await platform.until(lambda: platform.engine.alive)
    platform.engine.start_as = Start.READY
    newer = await platform.deploy()
    with pytest.raises(Aborted, match="replaced revision"):
        await older
    assert platform.app().revision_id == newer.revision_id


async def test_recreate_moves_at_once(platform: Platform) -> None:
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: any(r.routable for r in platform.fleet.runners))
    second = await platform.deploy(strategy=Strategy.RECREATE)
    assert platform.app().revision_id == second.revision_id
    lease = await platform.get()
    assert platform.runner(lease.runner_id).revision_id == second.revision_id


async def test_hanging_up_leaves_a_rollout_to_go_on(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    deploying = asyncio.create_task(platform.deploy())
    await platform.until(lambda: platform.engine.alive)
    deploying.cancel()
    await asyncio.gather(deploying, return_exceptions=True)
    coming = platform.app().next_revision_id
    assert coming is not None
    platform.engine.ready(platform.the_runner().runner_id)
    await platform.until(lambda: platform.app().revision_id == coming)


async def test_an_attached_deploy_shows_its_runner_s_log_to_the_last_line(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    heard: asyncio.Queue[LogEntry] = asyncio.Queue()

    async def listen() -> None:
        async for event in platform.deploys.deploy(SCOPE, deploy_request()):
            if isinstance(event, LogEntry):
                await heard.put(event)

    listening = asyncio.create_task(listen())
    await platform.until(lambda: platform.engine.alive)
    runner_id = platform.the_runner().runner_id
    build_line = await anext(platform.deploys.build(SCOPE, code_request(force_build=True)))
    assert isinstance(build_line, LogEntry)
    said = [
        replace(build_line, runner_id=runner_id, sequence=n, message=text, app_name="a")
        for n, text in enumerate(("loading", "Traceback"), 1)
    ]
    await platform.logs.ingest(said)
    platform.engine.gone(runner_id, "exit code 1", 1)
    with pytest.raises(FailedPrecondition, match="exit code 1"):
        await listening
    lines = [heard.get_nowait().message for _ in range(heard.qsize())]
    assert lines[-2:] == ["loading", "Traceback"]
