"""Deploys, rollouts, stops and scaling under load. No direct request fails, and no bad revision serves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from tests.support.rolled_app import Rollouts, load_on
from tests.support.waiting import until


def test_no_request_fails_while_an_app_is_deployed_rolled_stopped_and_scaled(rollouts: Rollouts) -> None:
    controller, sdk, app = rollouts.controller, rollouts.sdk, rollouts.app
    first = rollouts.deploy("one")
    until(rollouts.serving, "a runner serves")
    with load_on(controller, app) as load:
        load.comes_from("one")
        second = rollouts.deploy("two")
        assert second != first
        load.comes_from("two")

        controller.fal("apps", "set-rev", app, first)
        until(lambda: rollouts.revision() == first, "the app is back on its first revision")
        load.comes_from("one")

        [old] = [runner for runner in rollouts.serving() if runner.revision == first]
        controller.fal("runners", "stop", "--replace", old.runner_id)
        ended = rollouts.ended(old.runner_id)
        assert ended.state_reason == "stopped by request"
        assert ended.replacement.value == "DID_REPLACE"

        before = {runner.runner_id for runner in rollouts.serving()}
        controller.fal("apps", "rollout", app)
        assert rollouts.is_rolling()
        for runner_id in before:
            assert rollouts.ended(runner_id).state_reason == "rolled out"
        until(lambda: not rollouts.is_rolling(), "the rollout is over")

        controller.fal("apps", "scale", app, "--min-concurrency", "3", "--keep-alive", "1")
        until(lambda: len(rollouts.serving()) == 3, "three runners serve")
        controller.fal("apps", "scale", app, "--min-concurrency", "1", "--max-concurrency", "1", "--keep-alive", "0")
        until(lambda: len(rollouts.serving()) == 1 or load.failures, "one runner is left", 90)
        load.comes_from("one")
    assert load.failures == []
    assert set(load.answers) == {"one", "two"}
    explained = json.loads(controller.fal("apps", "explain", app, "--json").stdout)
    assert {"start", "move", "drain"} <= {decision["action"] for decision in explained["decisions"]}
    runner = sdk.runners.get(rollouts.serving()[0].runner_id)
    assert [change.state.value for change in runner.state_changes][-2:] == ["SETUP", "IDLE"]
    assert runner.start_phases is not None
    assert None not in (runner.start_phases.waiting, runner.start_phases.environment, runner.start_phases.setup)


def test_a_revision_that_fails_leaves_the_old_one_and_the_deploy_says_why(rollouts: Rollouts) -> None:
    controller, app = rollouts.controller, rollouts.app
    first = rollouts.deploy("good")
    until(rollouts.serving, "a runner serves")
    bad = rollouts.write("bad", setup="raise RuntimeError('no [weights] here')")
    with load_on(controller, app, callers=2) as load:
        load.comes_from("good")
        options = ("--app-name", app, "--auth", "private", "--reset-scale")
        done = controller.fal("deploy", str(bad), *options, check=False)
        load.comes_from("good")
    assert done.returncode == 1
    assert "no [weights] here" in done.stdout + done.stderr
    assert f"stays on revision {first}" in done.stderr
    assert load.failures == [], "what came with the bad revision took effect without it"
    assert rollouts.revision() == first
    [shown] = [one for one in rollouts.sdk.apps.list() if one.alias == app]
    assert (str(shown.auth_mode), shown.is_rolling) == ("public", False)


def test_of_two_deploys_at_once_the_later_wins_and_both_are_kept(rollouts: Rollouts) -> None:
    controller, app = rollouts.controller, rollouts.app
    rollouts.deploy("zero")
    paths = [rollouts.write(version) for version in ("left", "right")]
    with ThreadPoolExecutor(2) as pool:
        works = [
            pool.submit(controller.fal, "deploy", str(p), "--app-name", app, "--auth", "public", check=False)
            for p in paths
        ]
        done = [work.result() for work in works]
    until(lambda: not rollouts.is_rolling(), "both are settled")
    revisions = rollouts.sdk.apps.list_rev(app)
    assert len(revisions) == 3
    assert rollouts.revision() == revisions[0].application_id, "the one that came later does not serve"
    answer = controller.call(f"/local/{app}/", {}).json()
    assert answer in ("left", "right")
    for version, ended in zip(("left", "right"), done, strict=True):
        if ended.returncode:
            assert version != answer
            assert "replaced revision" in ended.stderr


def test_a_runner_that_asks_for_a_check_and_fails_it_is_replaced(rollouts: Rollouts) -> None:
    controller, app = rollouts.controller, rollouts.app
    rollouts.deploy("checked", check=True)
    rollouts.deploy("again", check=True)  # only after it has passed a check
    [old] = until(lambda: [r for r in rollouts.serving() if r.revision == rollouts.revision()], "a runner serves")
    assert controller.call(f"/local/{app}/break", {}).status == 200
    assert rollouts.ended(old.runner_id).state_reason == "unhealthy: POST /check answered 500"
    until(lambda: [r for r in rollouts.serving() if r.runner_id != old.runner_id], "another takes its place")
    assert controller.call(f"/local/{app}/", {}).json() == "again"
