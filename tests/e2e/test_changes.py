"""How an app moves: at once or when ready, attached or not. It also moves with force, and on a full node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.controller import BIN, Answer, running
from tests.support.rolled_app import Rollouts
from tests.support.waiting import until


def slow_call(pool: ThreadPoolExecutor, rollouts: Rollouts, version: str) -> Future[Answer]:
    """Keep a runner of this version busy with a request."""
    call = pool.submit(rollouts.controller.call, f"/local/{rollouts.app}/slow", {})
    until(lambda: f"slow in {version}" in rollouts.logs(), "the request is under way")
    return call


def test_recreate_moves_at_once_and_lets_what_is_under_way_finish(rollouts: Rollouts) -> None:
    first = rollouts.deploy("one")
    [old] = until(rollouts.serving, "a runner serves")
    with ThreadPoolExecutor(1) as pool:
        call = slow_call(pool, rollouts, "one")
        second = rollouts.deploy("two", "--strategy", "recreate")
        assert second != first
        assert rollouts.controller.call(f"/local/{rollouts.app}/", {}).json() == "two"
        rollouts.gate.touch()
        assert (call.result().status, call.result().json()) == (200, "one")
    assert str(rollouts.ended(old.runner_id).state_reason).startswith(f"revision {first} does not serve")


def test_a_rollout_with_force_replaces_all_at_once_also_the_busy(rollouts: Rollouts) -> None:
    rollouts.deploy("one", least=2)
    old = until(lambda: found if len(found := rollouts.serving()) == 2 else None, "two runners serve")
    with ThreadPoolExecutor(1) as pool:
        call = slow_call(pool, rollouts, "one")
        rollouts.controller.fal("apps", "rollout", rollouts.app, "--force")
        until(
            lambda: {r.runner_id for r in rollouts.serving()}.isdisjoint({r.runner_id for r in old}),
            "none of the old ones serves, busy or not",
        )
        assert rollouts.controller.call(f"/local/{rollouts.app}/", {}).status == 200
        # Its runner is killed after its grace, although the gate stays closed.
        assert (call.result().status, call.result().json()["error_type"]) == (503, "runner_disconnected")
    for runner in old:
        assert rollouts.ended(runner.runner_id).state_reason == "rolled out"


def test_a_detached_deploy_leaves_the_rollout_to_go_on(rollouts: Rollouts) -> None:
    first = rollouts.deploy("one")
    until(rollouts.serving, "a runner serves")
    path = rollouts.write("two", setup="threading.Event().wait(8)")
    done = rollouts.controller.fal("deploy", str(path), "--app-name", rollouts.app, "--detach", "--output", "json")
    explained = json.loads(done.stdout)
    assert explained["status"] == "rolling_out"
    assert (rollouts.revision(), rollouts.is_rolling()) == (first, True)
    until(lambda: rollouts.revision() == explained["revision"], "the app moves by itself")
    assert not rollouts.is_rolling()


def test_leaving_an_attached_deploy_leaves_the_rollout_to_go_on(rollouts: Rollouts) -> None:
    first = rollouts.deploy("one")
    until(rollouts.serving, "a runner serves")
    path = rollouts.write("two", setup="threading.Event().wait(1.5)")
    deploy = subprocess.Popen(
        [BIN / "fal", "deploy", str(path), "--app-name", rollouts.app, "--attach"],
        env=rollouts.controller.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(rollouts.is_rolling, "the deploy is under way")
    deploy.terminate()
    assert deploy.wait(30) != 0
    until(lambda: rollouts.revision() != first, "the app moves nevertheless")


def test_a_revision_that_is_not_ready_in_time_leaves_the_old_one(rollouts: Rollouts) -> None:
    first = rollouts.deploy("good")
    until(rollouts.serving, "a runner serves")
    path = rollouts.write("stuck", setup="threading.Event().wait(60)", startup=2)
    done = rollouts.controller.fal("deploy", str(path), "--app-name", rollouts.app, "--auth", "public", check=False)
    assert done.returncode == 1
    # On a busy machine it may not have printed anything by then.
    assert f"stays on revision {first}: not ready within startup_timeout 2 s" in done.stderr
    assert (rollouts.revision(), rollouts.is_rolling()) == (first, False)
    assert rollouts.controller.call(f"/local/{rollouts.app}/", {}).json() == "good"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollouts]:
    """Return an app that uses its machine's only GPU."""
    folder = tmp_path_factory.mktemp("small")
    with running(folder / "state", "--gpu", "GPU-A=1") as controller:
        made = Rollouts(controller, "holder", folder)
        with made.sdk:
            made.deploy("held", machine="GPU-A")
            until(made.serving, "a runner holds the GPU")
            yield made


def test_what_a_full_node_cannot_take_waits_and_says_why(small: Rollouts) -> None:
    other = Rollouts(small.controller, "other", small.source.parent)
    other.deploy("waits", machine="GPU-A")
    listed = until(other.pending, "a runner is held")
    assert listed[0]["state"] == "PENDING"
    assert "no node has room (GPU-A: 1 x GPU-A asked for, 0 free)" in listed[0]["reason"]
    shown = other.controller.fal("runners", "list").stdout
    assert "1 x GPU-A asked for, 0 free" in shown
    answer = other.controller.call("/local/other/", {}, headers={"X-Fal-Request-Timeout": "1"})
    assert answer.status == 504
    explained = json.loads(other.controller.fal("apps", "explain", "other", "--json").stdout)
    assert "hold" in {decision["action"] for decision in explained["decisions"]}
    other.controller.fal("apps", "delete", "other")


def test_a_deploy_that_finds_no_room_beside_the_old_runner_says_so_and_how_to_go_on(small: Rollouts) -> None:
    first = small.revision()
    path = small.write("beside", machine="GPU-A", startup=2)
    options = ("--app-name", small.app, "--auth", "public")
    done = small.controller.fal("deploy", str(path), *options, check=False)
    assert done.returncode == 1
    assert "1 x GPU-A asked for, 0 free" in done.stdout + done.stderr
    assert "found no room beside the old runners in 2 s" in done.stderr
    assert "--strategy recreate" in done.stderr
    assert (small.revision(), small.is_rolling()) == (first, False)
    never = small.controller.fal("deploy", str(small.write("never", machine="GPU-B")), *options, check=False)
    assert never.returncode == 1
    assert "no node has room (GPU-B: 1 x GPU-B asked for, 0 free)" in never.stderr, "no node could ever fit it"
    assert small.controller.call(f"/local/{small.app}/", {}).json() == "held"
