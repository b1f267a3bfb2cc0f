"""Runners on further machines. A node process of its own runs on loopback, with its own directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.controller import BIN, ROOT, Controller, start
from tests.support.ending import ends_with_us
from tests.support.waiting import until

APP = """
import os
import fal

class Far(fal.App, name="far", keep_alive=300, max_concurrency=1, max_multiplexing=4):
    termination_grace_period_seconds = 1
    machine_type = "GPU-FAR"  # which only the nodes of this test offer
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> dict:
        print("asked", flush=True)
        return {"runner": os.environ["FAL_RUNNER_ID"], "pid": os.getpid()}

    @fal.endpoint("/hold")
    def hold(self) -> dict:
        folder = os.environ["FAL_DATA_DIR"]
        os.close(os.open(folder + "/begins", os.O_CREAT | os.O_WRONLY, 0o666))
        with open(folder + "/goes-on"):
            return {}
"""


NEAR_APP = """
import fal

class Near(fal.App):
    app_auth = "public"
    min_concurrency = 1
    regions = ["eu-north"]

    @fal.endpoint("/")
    def run(self) -> dict:
        return {}
"""


@dataclass
class NodeProcess:
    """A node process, and what it printed."""

    directory: Path
    process: subprocess.Popen[str]
    name: str
    address: str
    token: str


def start_node(directory: Path, address: str = "127.0.0.1:0", *options: str) -> NodeProcess:
    host, _, port = address.rpartition(":")
    environment = {**os.environ, "COLUMNS": "200"}
    with (directory.parent / f"{directory.name}.log").open("a") as log:
        process = subprocess.Popen(
            [
                *ends_with_us(signal.SIGTERM),
                *(str(BIN / "fal"), "node", "up", "--node-dir", str(directory), "--host", host, "--port", port),
                *("--gpu", "GPU-FAR=1", "--isolation", "view", *options),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    first = process.stdout.readline()
    words = first.split()
    assert words[:1] == ["Node"], first
    token = ""
    if "joined" not in first:
        assert process.stdout.readline().strip() == f"fal node join {words[4].rstrip('.')}"
        token = process.stdout.readline().removeprefix("token: ").strip()
    return NodeProcess(directory, process, words[1], words[4].rstrip("."), token)


def end(node: NodeProcess, number: int = signal.SIGTERM) -> None:
    node.process.send_signal(number)
    node.process.wait(60)
    assert node.process.stdout is not None
    node.process.stdout.close()


def join(controller: Controller, node: NodeProcess) -> None:
    controller.fal("node", "join", node.address, stdin=f"{node.token}\n".encode())


def kill_shims(directory: Path) -> None:
    for path in (directory / "runners").glob("*/shim.json"):
        pid = json.loads(path.read_text())["pid"]
        os.kill(pid, signal.SIGKILL)


def copy_state(of: Path, to: Path) -> None:
    """Copy the state of a frozen controller."""
    shutil.copytree(of, to, ignore=shutil.ignore_patterns("*.sock", "runners"))
    (to / "runners").mkdir(mode=0o700)


@pytest.fixture
def place(tmp_path: Path) -> Generator[tuple[Controller, NodeProcess]]:
    controller = start(tmp_path / "controller")
    node = start_node(tmp_path / "box 2, the #second")
    try:
        join(controller, node)
        (tmp_path / "far.py").write_text(APP)
        controller.fal("deploy", str(tmp_path / "far.py"))
        yield controller, node
    finally:
        controller.stop()
        if node.process.poll() is None:
            end(node)


def runners(controller: Controller) -> list[dict[str, str]]:
    return json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]


def call(controller: Controller) -> dict[str, object]:
    answer = controller.call("/local/far", {})
    assert answer.status == 200, answer.body
    found = answer.json()
    assert isinstance(found, dict)
    return found


def test_an_app_runs_on_another_machine(place: tuple[Controller, NodeProcess]) -> None:
    controller, node = place
    asked = call(controller)
    [runner] = runners(controller)
    assert runner["node"] == node.name
    assert asked["runner"] == runner["runner_id"]
    assert node.name in controller.fal("runners", "list", "-o", "wide").stdout
    assert node.name in controller.fal("status").stdout
    [listed] = json.loads(controller.fal("node", "list", "--json").stdout)["nodes"]
    assert (listed["name"], listed["trouble"], listed["runners"]) == (node.name, "", 1)
    until(lambda: "asked" in controller.fal("runners", "logs", runner["runner_id"]).stdout, "its line")
    ran = controller.fal(
        "runners", "exec", runner["runner_id"], "--", "sh", "-c", "cat; exit 3", stdin=b"x", check=False
    )
    assert (ran.stdout, ran.returncode) == ("x", 3)
    controller.fal("runners", "stop", runner["runner_id"])
    until(lambda: not runners(controller), "its end")
    until(lambda: not list((node.directory / "runners").iterdir()), "its files to go")  # they go after its row


def test_runners_outlive_node_and_controller(place: tuple[Controller, NodeProcess]) -> None:
    controller, node = place
    before = call(controller)
    end(node, signal.SIGKILL)
    until(lambda: "does not answer" in controller.fal("node", "list").stdout, "the silence of the node")
    node = start_node(node.directory, node.address)
    until(lambda: "ready" in controller.fal("node", "list").stdout, "the node's return")
    assert call(controller) == before
    controller.process.kill()
    controller.process.wait()
    again = start(controller.state_dir)
    try:
        assert call(again) == before
        [runner] = runners(again)
        assert (runner["runner_id"], runner["node"]) == (before["runner"], node.name)
    finally:
        again.stop()
        end(node)
        controller.stop = lambda timeout=60: 0


def test_a_runner_is_not_blamed_for_its_node(place: tuple[Controller, NodeProcess], tmp_path: Path) -> None:
    controller, node = place
    before = call(controller)
    broken: list[int] = []
    kept: list[dict[str, object]] = []
    # The runner sees it in the directory that its node gives it as /data.
    data = node.directory / "data"
    os.mkfifo(data / "goes-on")
    asking = threading.Thread(target=lambda: broken.append(controller.call("/local/far/hold", {}).status))
    asking.start()
    until((data / "begins").exists, "the request")
    end(node, signal.SIGKILL)
    asking.join()
    assert broken == [503]
    until(lambda: "does not answer" in controller.fal("node", "list").stdout, "the silence of the node")
    waiting = threading.Thread(target=lambda: kept.append(call(controller)))
    waiting.start()
    node = start_node(node.directory, node.address)
    try:
        waiting.join()
        assert kept == [before], "the same process answers what waited meanwhile"
        with (data / "goes-on").open("w"):
            assert [runner["runner_id"] for runner in runners(controller)] == [before["runner"]]
    finally:
        controller.stop()
        end(node)


def test_a_drained_node_loses_no_request(place: tuple[Controller, NodeProcess], tmp_path: Path) -> None:
    controller, node = place
    other = start_node(tmp_path / "box3")
    try:
        join(controller, other)
        call(controller)
        [runner] = runners(controller)
        drained, left = (node, other) if runner["node"] == node.name else (other, node)
        answers: list[int] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(controller.call("/local/far", {}).status)

        asking = threading.Thread(target=ask)
        asking.start()
        controller.fal("node", "drain", drained.name)
        until(lambda: [r["node"] for r in runners(controller)] == [left.name], "the move")
        done.set()
        asking.join()
        assert set(answers) == {200}
        controller.fal("node", "remove", drained.name)
        assert drained.name not in controller.fal("node", "list").stdout
        refused = controller.fal("node", "remove", left.name, check=False)
        assert refused.returncode == 1
        assert "has 1 of the runners" in refused.stderr
    finally:
        controller.stop()
        end(other)


def test_a_frozen_controller_that_was_overtaken_can_do_nothing(
    place: tuple[Controller, NodeProcess], tmp_path: Path
) -> None:
    controller, _node = place
    before = call(controller)
    controller.process.send_signal(signal.SIGSTOP)
    copy_state(controller.state_dir, tmp_path / "later")
    (tmp_path / "later" / "directory.json").unlink()  # nor can a clone of a whole machine be told from it
    later = start(tmp_path / "later")
    try:
        assert call(later) == before, "it took the runner over with the node"
        controller.process.send_signal(signal.SIGCONT)
        until(lambda: "takes no orders of this" in controller.fal("node", "list").stdout, "what the node says to it")
        until(lambda: not runners(controller), "it to give its runners up")
        assert call(later) == before, "the earlier one has not ended it"
        controller.process.kill()
        controller.process.wait()
        again = start(controller.state_dir)
        try:
            assert "takes no orders of this" in again.fal("node", "list").stdout, "it counts to the same number"
            assert call(later) == before
        finally:
            again.stop()
        assert call(later) == before
    finally:
        later.stop()
        controller.stop = lambda timeout=60: 0


def test_a_copy_of_a_controller_has_none_of_its_nodes(place: tuple[Controller, NodeProcess], tmp_path: Path) -> None:
    controller, _node = place
    before = call(controller)
    controller.process.send_signal(signal.SIGSTOP)
    copy_state(controller.state_dir, tmp_path / "copy")
    controller.process.send_signal(signal.SIGCONT)
    copy = start(tmp_path / "copy", "--adopt-copy")
    try:
        assert "No further machine has joined" in copy.fal("node", "list").stderr
        assert call(controller) == before
    finally:
        copy.stop()


def test_what_the_page_shows_is_what_is_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/second-machine.md").read_text()
    steps: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for line in block.splitlines() if "$ fal " in block else ():
            if line.startswith("$ fal "):
                steps.append((shlex.split(line)[2:], []))
            else:
                steps[-1][1].append(line)
    assert [words[1] for words, _ in steps] == ["up", "join", "list", "drain", "drain", "remove"]
    controller = start(tmp_path / "controller")
    node = start_node(tmp_path / "box2", "127.0.0.1:0", "--region", "us-east")
    try:
        names = {"10.0.0.5:7411": node.address, "box2-3f9a1c2b": node.name}
        for words, shown in steps[1:]:
            printed = controller.fal(
                *(names.get(word, word) for word in words), stdin=f"{node.token}\n".encode()
            ).stdout
            expected = "\n".join(shown)
            for sample, found in names.items():
                expected = expected.replace(sample, found)
            assert printed.split() == expected.split(), f"{printed}\n---\n{expected}"
    finally:
        controller.stop()
        end(node)


def test_an_app_starts_where_one_of_its_regions_is(tmp_path: Path) -> None:
    controller = start(tmp_path / "controller", "--region", "us-west")
    node = start_node(tmp_path / "box2", "127.0.0.1:0", "--region", "us-east")
    try:
        join(controller, node)
        assert "us-east" in controller.fal("node", "list").stdout
        (tmp_path / "near.py").write_text(NEAR_APP)
        controller.fal("deploy", str(tmp_path / "near.py"))
        reason = "no machine is in a region that the app allows (eu-north); they are in: us-east, us-west"

        def waits() -> bool:
            found = [each["runner_id"] for each in runners(controller) if each["state"] == "PENDING"]
            return any(reason in controller.fal("runners", "get", each, "--json").stdout for each in found)

        until(waits, "a runner that waits for its region")
        controller.fal("apps", "scale", "near", "--regions", "eu-north", "us-east")
        found = until(lambda: [each for each in runners(controller) if each["state"] == "IDLE"], "a runner")
        assert [(each["node"], each["region"]) for each in found] == [(node.name, "us-east")]
        assert "us-east" in controller.fal("runners", "list", "-o", "wide").stdout
    finally:
        controller.stop()
        end(node)
