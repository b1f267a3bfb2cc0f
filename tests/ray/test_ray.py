"""Runners that a real Ray cluster places. The tests run in this order: the last one ends Ray's head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.far import far_app
from tests.ray.conftest import RayCluster, groups
from tests.support.controller import Answer
from tests.support.ray import ADDRESS
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


def call(cluster: RayCluster) -> Answer:
    return cluster.controller.call("/local/far", {}, key=cluster.controller.key)


def serving(cluster: RayCluster, count: int) -> Sequence[dict[str, str]]:
    def ready() -> list[dict[str, str]]:
        found = [each for each in cluster.runners() if each["state"] in {"RUNNING", "IDLE"}]
        return found if len(found) == count else []

    return until(ready, f"{count} runners that serve", 180)


def waiting(cluster: RayCluster, words: str) -> str:
    """Wait until a runner says these words about its wait. Return its id."""

    def found() -> str:
        for each in cluster.runners():
            if each["state"] == "PENDING":
                shown = json.loads(cluster.controller.fal("runners", "get", each["runner_id"], "--json").stdout)
                if words in json.dumps(shown):
                    return each["runner_id"]
        return ""

    return until(found, f"a runner that waits because: {words}", 180)


def owners() -> list[str]:
    return sorted(name.split(":")[1] for name in groups())


def test_ray_places_runners_says_why_one_waits_and_gets_everything_back(cluster: RayCluster, tmp_path: Path) -> None:
    app = tmp_path / "far.py"
    app.write_text(far_app(2))
    cluster.controller.fal("deploy", str(app))
    runners = serving(cluster, 2)
    assert {each["node"] for each in runners} == set(cluster.joined().values())
    assert call(cluster).status == 200
    assert owners() == sorted(each["runner_id"] for each in runners)
    assert "2 of 3 machines have a node; 2 placed, 0 waiting" in cluster.controller.fal("status").stdout
    cluster.controller.fal("apps", "scale", "far", "--min-concurrency", "3")
    third = waiting(cluster, "Ray has no room for it now (NO_RESOURCES; GPU-FAR: 1024 MiB, 1 x GPU-FAR)")
    cluster.controller.fal("apps", "scale", "far", "--min-concurrency", "2")
    first = runners[0]["runner_id"]
    cluster.controller.fal("runners", "kill", first)
    until(lambda: first not in {each["runner_id"] for each in cluster.runners()}, "the end of a runner")
    until(lambda: owners() == sorted(each["runner_id"] for each in serving(cluster, 2)), "their groups")
    assert third not in {runners[0]["runner_id"], runners[1]["runner_id"]}


def test_the_same_runners_and_reservations_after_kill_9_of_the_controller(cluster: RayCluster) -> None:
    before = {each["runner_id"]: each["node"] for each in serving(cluster, 2)}
    names = sorted(groups())
    stray = names[0].replace(names[0].split(":")[1], "nobody")
    others = "fal-000000000000:somebody:0.1"
    assert {stray, others} <= groups(stray, others).keys()
    cluster.crash()
    assert {each["runner_id"]: each["node"] for each in serving(cluster, 2)} == before
    until(lambda: sorted(groups()) == sorted([*names, others]), "the removal of what no runner needs")


def test_what_fits_nowhere_fails_its_requests(cluster: RayCluster, tmp_path: Path) -> None:
    app = tmp_path / "huge.py"
    app.write_text(far_app(0).replace("GPU-FAR", "GPU-NONE").replace('name="far"', 'name="huge"'))
    cluster.controller.fal("deploy", "--strategy", "recreate", str(app), check=False)
    answer = cluster.controller.call("/local/huge", {}, key=cluster.controller.key)
    assert answer.status == 503
    assert "no machine of Ray could hold it" in answer.body.decode()
    cluster.controller.fal("apps", "delete", "huge", "--yes")


def test_a_machine_that_is_lost_has_its_runners_replaced_where_ray_has_room(cluster: RayCluster) -> None:
    lost, stays = cluster.boxes
    [gone] = [each for each in serving(cluster, 2) if each["node"].startswith(f"{lost.machine.name}-")]
    lost.machine.power_off()
    pending = waiting(cluster, "Ray has no room for it now (NO_RESOURCES")
    assert gone["runner_id"] not in owners()
    [left] = serving(cluster, 1)
    assert left["node"].startswith(f"{stays.machine.name}-")
    cluster.controller.fal("runners", "kill", left["runner_id"])
    until(lambda: serving(cluster, 1)[0]["runner_id"] != left["runner_id"], "another in its place")
    assert call(cluster).status == 200
    assert pending


def test_without_rays_head_runners_serve_on_and_none_starts(cluster: RayCluster) -> None:
    [runner] = serving(cluster, 1)
    cluster.head.end()
    until(lambda: "does not answer since" in cluster.controller.fal("status").stdout, "the silence of Ray")
    waiting(cluster, f"it waits: Ray at {ADDRESS} does not answer since")
    assert json.loads(call(cluster).body)["runner"] == runner["runner_id"]
    doctor = cluster.controller.fal("doctor", check=False)
    assert doctor.returncode == 1
    assert "Runners go on, and none starts." in doctor.stdout
