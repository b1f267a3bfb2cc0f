"""Nodes that lose their power, are cut off or are frozen. It is for less and for more than it takes to give them up."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import Box, Cluster
from tests.cluster.far import far_app
from tests.support.controller import Answer
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


def deploy(cluster: Cluster, path: Path, runners: int) -> None:
    path.write_text(far_app(runners))
    cluster.controller.fal("deploy", str(path))


def call(cluster: Cluster, path: str) -> Answer:
    return cluster.controller.call(path, {}, key=cluster.controller.key)


def ask(cluster: Cluster) -> dict[str, object]:
    answer = call(cluster, "/local/far")
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
    boxes = cluster.add("one", "two", "three", "four")
    deploy(cluster, tmp_path / "far.py", 4)
    all_runners = {box.machine.name: cluster.runner_on(box) for box in boxes}
    for box in boxes:
        os.mkfifo(box.data / "goes-on")
    held: list[int] = []
    holding = threading.Thread(target=lambda: held.append(call(cluster, "/local/far/hold").status))
    holding.start()
    cut_off = until(lambda: next((box for box in boxes if (box.data / "begins").exists()), None), "the held request")
    stays, off, frozen = (box for box in boxes if box is not cut_off)
    kept = all_runners.pop(stays.machine.name)
    lost = {all_runners[box.machine.name]: box for box in (off, cut_off, frozen)}
    keys = [(box.data / runner_id).read_text() for runner_id, box in lost.items()]
    for key in keys:
        assert cluster.controller.call("/local/far", {}, key=key).status == 200
    off.machine.power_off()
    cut_off.machine.cut()
    frozen.process.send(signal.SIGSTOP)
    for box in lost.values():
        until(lambda box=box: "does not answer" in cluster.trouble(box), f"the silence of {box.machine.name}")
    assert ask(cluster)["runner"] == kept, "requests go where they are answered"
    until(lambda: not {runner["runner_id"] for runner in cluster.runners()} & set(lost), "their end", 90)
    holding.join()
    assert held == [503]
    written = {runner_id: beats(cluster, runner_id) for runner_id in lost}
    for key in keys:
        assert cluster.controller.call("/local/far", {}, key=key).status == 401
    for runner_id in lost:
        assert "was lost" in cluster.controller.fal("runners", "get", runner_id, "--json").stdout
    off.restart()
    cut_off.machine.mend()
    frozen.process.send(signal.SIGCONT)
    back = time.monotonic()
    for runner_id, box in lost.items():
        until(lambda runner_id=runner_id, box=box: runner_id not in processes(box), f"the end of {runner_id}")
    print(f"gone {time.monotonic() - back:.1f} s after the nodes were back")
    new = {cluster.runner_on(box) for box in lost.values()}
    assert not new & set(lost)
    assert cluster.runner_on(stays) == kept
    assert {str(ask(cluster)["runner"]) for _ in range(20)} <= new | {kept}
    assert {runner_id: beats(cluster, runner_id) for runner_id in lost} == written
