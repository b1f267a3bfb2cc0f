"""Two controllers on one PostgreSQL database. One takes over when the other dies, freezes or is stopped."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_nodes import APP, NodeProcess, call, end, join, start_node
from tests.support.controller import Controller, start
from tests.support.postgresql import postgresql
from tests.support.waiting import until

REQUESTS = 20


@pytest.fixture
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as server:
        yield server.make("fal")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    started = start_node(tmp_path / "box2")
    yield started
    end(started)


def begin(directory: Path, url: str, key: Path) -> Controller:
    """Start a controller that takes over. It serves if there is no other."""
    return start(
        directory,
        *("--standby", "--content-dir", str(directory.parent / "content")),
        environment={"FAL_DATABASE_URL": url, "FAL_MASTER_KEY_FILE": str(key)},
    )


def accept(controller: Controller, number: int) -> list[str]:
    """Have the queue accept requests; return their ids."""
    answers = [controller.call("/queue/local/far", {}) for _ in range(number)]
    assert {answer.status for answer in answers} == {200}
    return [str(dict(answer.json())["request_id"]) for answer in answers]


def completed(controller: Controller, request_id: str) -> dict[str, object]:
    """Wait for the answer to a request."""

    def state() -> bool:
        answer = controller.call(f"/queue/local/far/requests/{request_id}/status", key=controller.key)
        return answer.status in (200, 202) and dict(answer.json())["status"] == "COMPLETED"

    until(state, f"the end of request {request_id}")
    answer = controller.call(f"/queue/local/far/requests/{request_id}", key=controller.key)
    assert answer.status == 200, answer.body
    return dict(answer.json())


def owns(controller: Controller, epoch: int) -> None:
    until(
        lambda: f"epoch {epoch}, held" in controller.fal("status", check=False).stdout,
        f"{controller.state_dir.name} to have epoch {epoch}",
    )


def doctor(controller: Controller) -> str:
    return controller.fal("doctor", check=False).stdout


def waits(controller: Controller, owner: Controller) -> None:
    until(
        lambda: f"at {owner.host}" in controller.fal("status", check=False).stdout,
        f"{controller.state_dir.name} to wait",
    )


def test_another_takes_over_and_nothing_accepted_is_lost(url: str, node: NodeProcess, tmp_path: Path) -> None:
    key = tmp_path / "master.key"
    key.write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
    key.chmod(0o600)
    first = begin(tmp_path / "first", url, key)
    second = begin(tmp_path / "second", url, key)
    try:
        join(first, node)
        (tmp_path / "far.py").write_text(APP)
        second.fal("deploy", str(tmp_path / "far.py"))  # the one that waits passes everything on
        waits(second, first)
        assert f"waits for its database, which {socket.gethostname()} at {first.host} has" in doctor(second)
        assert f"{socket.gethostname()} at {second.host} waits to take over" in doctor(first)
        before = call(second)
        [runner] = json.loads(second.fal("runners", "list", "--json").stdout)["runners"]
        ran = second.fal(
            "runners", "exec", runner["runner_id"], "--", "sh", "-c", "cat; exit 3", stdin=b"x", check=False
        )
        assert (ran.stdout, ran.returncode) == ("x", 3)

        accepted = accept(second, REQUESTS)
        first.process.kill()
        first.process.wait()
        assert {completed(second, one)["runner"] for one in accepted} == {before["runner"]}
        assert call(second) == before, "the runner on the node was adopted"
        owns(second, 2)

        first = begin(tmp_path / "first", url, key)
        waits(first, second)
        assert call(first) == before
        accepted = accept(first, REQUESTS)
        second.process.send_signal(signal.SIGSTOP)
        owns(first, 3)
        second.process.send_signal(signal.SIGCONT)
        assert {completed(first, one)["runner"] for one in accepted} == {before["runner"]}
        waits(second, first)
        assert call(first) == before, "the one that was frozen has ended nothing"
        assert call(second) == before

        answers: list[object] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    answers.append(second.call("/local/far", {}).status)
                except OSError as error:
                    answers.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: bool(answers), "an answer")
        assert first.stop() == 0
        owns(second, 4)
        before_it = len(answers)
        until(lambda: len(answers) > before_it, "an answer of the next one")
        done.set()
        asking.join()
        assert set(answers) == {200}
        assert call(second) == before
    finally:
        for controller in (first, second):
            if controller.process.poll() is None:
                controller.stop()


def test_what_would_not_take_over_is_refused(url: str, tmp_path: Path) -> None:
    first = start(tmp_path / "first", "--content-dir", str(tmp_path / "content"), environment={"FAL_DATABASE_URL": url})
    key = tmp_path / "first" / "master.key"
    try:
        for arguments, variables, said in (
            (["--standby", "--content-dir", str(tmp_path / "content")], {}, "made with another master key"),
            (["--standby"], {"FAL_MASTER_KEY_FILE": str(key)}, "--standby needs --content, a bucket, or --content-dir"),
            (
                ["--standby", "--content", "s3://another/place"],
                {"FAL_MASTER_KEY_FILE": str(key)},
                "is not where the other controllers of this database have code and files: that is a directory",
            ),
            (
                ["--standby", "--content-dir", str(tmp_path / "other")],
                {"FAL_MASTER_KEY_FILE": str(key)},
                "is not the directory that the other controllers of this database share",
            ),
            ([], {"FAL_MASTER_KEY_FILE": str(key)}, "let it wait for the other with --standby"),
        ):
            refused = subprocess.run(
                [sys.executable, "-m", "fal_server", "--state-dir", str(tmp_path / "second"), *arguments],
                env={"PATH": "", "FAL_DATABASE_URL": url, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            # 2, as for every contradiction of options, is said before the database is asked.
            assert refused.returncode in ((2,) if said.startswith("--standby needs") else (1, 3))
            assert said in refused.stderr
    finally:
        first.stop()
