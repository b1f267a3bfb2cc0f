"""Nodes that lose their power, are cut off or are frozen, for less and for more than it takes to give them up."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import Box, Cluster
from tests.cluster.far import far_app
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


def deploy(cluster: Cluster, path: Path, runners: int) -> None:
    path.write_text(far_app(runners))
    cluster.controller.fal("deploy", str(path))


def ask(cluster: Cluster) -> dict[str, object]:
    answer = cluster.controller.call("/local/far", {}, key=cluster.controller.key)
    assert answer.status == 200, answer.body
    found = answer.json()
    assert isinstance(found, dict)
    return found


def beats(cluster: Cluster, runner_id: str) -> list[str]:
    lines = cluster.controller.fal("runners", "logs", runner_id, "-n", "10000").stdout.splitlines()
    return [line for line in lines if "beat" in line]


def processes(box: Box) -> list[str]:
    return [path.name for path in (box.machine.directory / "node" / "runners").iterdir()]


def test_a_node_that_is_back_before_it_is_given_up_serves_on(cluster: Cluster, tmp_path: Path) -> None:
    boxes = cluster.add("cut-off", "frozen")
    deploy(cluster, tmp_path / "far.py", 2)
    before = {box.machine.name: cluster.runner_on(box) for box in boxes}
    cut_off, frozen = boxes
    cut_off.machine.cut()
    frozen.process.send(signal.SIGSTOP)
    for box in boxes:
        until(lambda box=box: "does not answer" in cluster.trouble(box), f"the silence of {box.machine.name}")
    kept: list[dict[str, object]] = []
    waiting = threading.Thread(target=lambda: kept.append(ask(cluster)))
    waiting.start()
    cut_off.machine.mend()
    frozen.process.send(signal.SIGCONT)
    for box in boxes:
        until(lambda box=box: not cluster.trouble(box), f"the return of {box.machine.name}")
    waiting.join()
    assert {answer["runner"] for answer in kept} <= set(before.values())
    assert {box.machine.name: cluster.runner_on(box) for box in boxes} == before
    counts = {runner_id: len(beats(cluster, runner_id)) for runner_id in before.values()}
    until(lambda: all(len(beats(cluster, each)) > count for each, count in counts.items()), "more of their lines")


def test_a_node_that_is_given_up_serves_and_writes_no_more(cluster: Cluster, tmp_path: Path) -> None:
    stays, off, cut_off, frozen = cluster.add("stays", "off", "cut-off", "frozen")
    lost = [off, cut_off, frozen]
    deploy(cluster, tmp_path / "far.py", 4)
    kept = cluster.runner_on(stays)
    old = {box.machine.name: cluster.runner_on(box) for box in lost}
    keys = {name: (box.data / old[name]).read_text() for name, box in zip(old, lost, strict=True)}
    for key in keys.values():
        assert cluster.controller.call("/local/far", {}, key=key).status == 200
    off.machine.power_off()
    cut_off.machine.cut()
    frozen.process.send(signal.SIGSTOP)
    for box in lost:
        until(lambda box=box: "does not answer" in cluster.trouble(box), f"the silence of {box.machine.name}")
    assert ask(cluster)["runner"] == kept, "requests go where they are answered"
    until(lambda: not {r["runner_id"] for r in cluster.runners()} & set(old.values()), "their end", 90)
    written = {runner_id: beats(cluster, runner_id) for runner_id in old.values()}
    for name, key in keys.items():
        assert cluster.controller.call("/local/far", {}, key=key).status == 401
        ended = json.loads(cluster.controller.fal("runners", "get", old[name], "--json").stdout)
        assert "was lost" in json.dumps(ended)
    off.restart()
    cut_off.machine.mend()
    frozen.process.send(signal.SIGCONT)
    back = time.monotonic()
    for box in lost:
        until(lambda box=box: old[box.machine.name] not in processes(box), f"the end of what {box.machine.name} ran")
    print(f"gone {time.monotonic() - back:.1f} s after the nodes were back")
    new = {cluster.runner_on(box) for box in lost}
    assert not new & set(old.values())
    assert cluster.runner_on(stays) == kept
    assert {str(ask(cluster)["runner"]) for _ in range(20)} <= new | {kept}
    assert {runner_id: beats(cluster, runner_id) for runner_id in old.values()} == written
