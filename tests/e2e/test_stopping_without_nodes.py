"""A controller stops even if its nodes do not answer. It says so, does not wait long, and forgets nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_nodes import APP, NodeProcess, call, end, join, runners, start_node
from tests.support.controller import Controller, start
from tests.support.waiting import until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    started = start_node(tmp_path / "box2")
    yield started
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGCONT)
        end(started)


def placed(tmp_path: Path, node: NodeProcess) -> Controller:
    """Start a controller whose app has a runner on the node."""
    controller = start(tmp_path / "controller")
    join(controller, node)
    (tmp_path / "far.py").write_text(APP)
    controller.fal("deploy", str(tmp_path / "far.py"))
    return controller


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "frozen"])
def test_runners_of_a_silent_node_are_not_waited_for(how: signal.Signals, node: NodeProcess, tmp_path: Path) -> None:
    controller = placed(tmp_path, node)
    before = call(controller)
    node.process.send_signal(how)
    until(lambda: "does not answer" in controller.fal("node", "list").stdout, "the silence of the node")
    down = controller.fal("down")
    assert f"It waits for 1 runner on node {node.name}, which does not answer (at most 5 s)" in down.stderr
    assert "to be killed" not in down.stderr
    assert controller.process.wait(60) == 0
    log = (controller.state_dir / "controller.log").read_text()
    assert f"1 runner on node {node.name}, which does not answer: the next start of a controller ends" in log
    os.kill(int(str(before["pid"])), 0)  # it serves on there
    if how is signal.SIGKILL:
        end(node, how)
        node = start_node(node.directory, node.address)
    else:
        node.process.send_signal(signal.SIGCONT)
    again = start(controller.state_dir)
    try:
        until(
            lambda: before["runner"] not in {each["runner_id"] for each in runners(again)}, "the next start to end it"
        )
        assert call(again)["runner"] != before["runner"]
    finally:
        assert again.stop() == 0
        end(node)
