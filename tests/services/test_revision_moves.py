"""Moving to a revision with its settings. Runners end in two phases."""

from __future__ import annotations

import pytest

from fal_server.core.apps import AuthMode
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired, RunnerState
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform, running

LIVELY = {"min_concurrency": 1, "max_concurrency": 4, "keep_alive": 60}


async def test_a_reset_and_a_new_auth_mode_take_effect_with_the_revision(idle: Platform) -> None:
    async with running(idle) as platform:
        await platform.deploy(scaling=LIVELY, auth_mode=AuthMode.PUBLIC)
        await platform.until(lambda: platform.fleet.runners and platform.the_runner().routable)
        platform.engine.start_as = Start.WAITS
        await platform.deploy(scaling={"keep_alive": 7}, auth_mode=AuthMode.PRIVATE, reset_scale=True, attach=False)
        app = platform.app()
        assert (app.auth_mode, app.scaling.keep_alive, app.scaling.min_concurrency) == (AuthMode.PUBLIC, 60, 1)
        await platform.apps.update(SCOPE, "a", "", {"max_concurrency": 3})
        await platform.until(lambda: len(platform.engine.alive) == 2)
        platform.engine.ready(platform.engine.launched[-1].runner_id)
        await platform.until(lambda: platform.app().next_revision_id is None)
        app = platform.app()
        assert (app.auth_mode, app.scaling.keep_alive, app.scaling.min_concurrency) == (AuthMode.PRIVATE, 7, 0)
        assert app.scaling.max_concurrency == 3, "what was asked for meanwhile is lost"
        assert (app.next_auth_mode, app.next_scaling) == (None, None)


async def test_settings_of_a_revision_that_fails_never_take_effect(idle: Platform) -> None:
    async with running(idle) as platform:
        await platform.deploy(scaling=LIVELY, auth_mode=AuthMode.PUBLIC)
        await platform.until(lambda: platform.fleet.runners and platform.the_runner().routable)
        platform.engine.start_as = Start.ENDS
        await platform.deploy(auth_mode=AuthMode.PRIVATE, reset_scale=True, attach=False)
        await platform.until(lambda: platform.app().next_revision_id is None)
        assert (platform.app().auth_mode, platform.app().scaling.keep_alive) == (AuthMode.PUBLIC, 60)
        assert [d.action for d in platform.decisions.of(app_id("a"))][-1] == "abandon"


async def test_a_stop_may_have_its_own_grace_and_follows_the_confirmation(idle: Platform) -> None:
    async with running(idle) as platform:
        await platform.deploy(scaling=LIVELY)
        await platform.until(lambda: platform.fleet.runners and platform.the_runner().routable)
        lease = await platform.get()
        for wrong in (-1, 31):
            with pytest.raises(InvalidArgument, match="between 0 and 30"):
                await platform.runners.stop(SCOPE, lease.runner_id, replace_first=False, grace_seconds=wrong)
        await platform.runners.stop(SCOPE, lease.runner_id, replace_first=False, grace_seconds=2)
        runner = platform.fleet.get(lease.runner_id)
        assert runner is not None
        assert (runner.desired, runner.unrouted_at) == (Desired.DRAIN, platform.clock.now())
        with pytest.raises(AssertionError, match="no further requests"):
            platform.fleet.begin(lease.slot, lease)
        assert platform.engine.stopped == []
        platform.dispatcher.release(lease, Outcome.DONE)
        await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)
        assert platform.engine.stopped == [(lease.runner_id, 2)]
        states = [change.state for change in await platform.fleet.history(LOCAL, lease.runner_id)]
        assert states[:2] == [RunnerState.PENDING, RunnerState.PENDING]
        assert states[-1] is RunnerState.TERMINATED
