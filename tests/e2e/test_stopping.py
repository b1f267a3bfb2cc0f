"""Stopping a controller lets requests in flight finish. `fal down` shows its progress, and can stop at once."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.controller import BIN, ROOT, Answer, start
from tests.support.waiting import until

APP = ROOT / "tests" / "support" / "gateway_app.py"


class Site:
    """The test's own controller with an app. The app's requests wait at a gate."""

    def __init__(self, folder: Path) -> None:
        self.controller = start(folder / "state", "--drain-seconds", "600")
        self.gate, self.entered = folder / "gate", folder / "entered"
        self.controller.fal("deploy", str(APP), "--app-name", "held", "--auth", "public", "--strategy", "recreate")
        self._pool = ThreadPoolExecutor(4)

    def hold(self) -> Future[Answer]:
        """Start a request and wait until it is on a runner."""
        body = {"entered": str(self.entered), "gate": str(self.gate)}
        answer = self._pool.submit(self.controller.call, "/local/held/held", body)
        until(self.entered.exists, "the request is on its runner")
        return answer

    def down(self, *options: str) -> subprocess.Popen[str]:
        command = [str(BIN / "fal"), "down", *options]
        return subprocess.Popen(command, env=self.controller.environment, stderr=subprocess.PIPE, text=True)

    def close(self) -> None:
        self.gate.touch()
        self._pool.shutdown()
        if self.controller.process.poll() is None:
            self.controller.process.kill()
        self.controller.process.wait()


@pytest.fixture
def site(tmp_path: Path) -> Generator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def wait_for(down: subprocess.Popen[str], words: str) -> str:
    """Return the output of `fal down` up to some words."""
    assert down.stderr is not None
    seen = ""
    while words not in seen:
        line = down.stderr.readline()
        assert line, f"no {words!r} in {seen!r}"
        seen += line
    return seen


def test_requests_and_uploads_finish_and_fal_down_says_what_it_waits_for(site: Site) -> None:
    controller = site.controller
    held = site.hold()
    # Half of a body for the queue, which needs no runner and is not accepted yet.
    upload = http.client.HTTPConnection("127.0.0.1", controller.port, timeout=60)
    body = json.dumps({"entered": "x", "gate": "y"}).encode()
    upload.putrequest("POST", "/queue/local/held/held")
    upload.putheader("Content-Length", str(len(body)))
    upload.endheaders(body[:10])

    down = site.down()
    wait_for(down, "It waits for 1 request in flight (at most 600 s)")
    late = site.down()
    wait_for(late, "is stopping already")
    site.gate.touch()
    assert held.result(60).status == 200
    wait_for(down, "It waits for 1 connection to be answered")
    upload.send(body[10:])
    accepted = upload.getresponse()
    assert (accepted.status, accepted.headers["connection"]) == (200, "close")
    accepted.read()
    upload.close()
    wait_for(down, "Stopped.")
    assert (down.wait(60), late.wait(60), controller.process.wait(60)) == (0, 0, 0)
    for process in (down, late):
        process.communicate()


def test_it_can_be_ended_at_once(site: Site) -> None:
    held = site.hold()
    down = site.down()
    wait_for(down, "1 request in flight")
    second = site.down("--now")
    wait_for(second, "is stopping already")
    assert (second.wait(60), down.wait(60), site.controller.process.wait(60)) == (0, 0, 0)
    answer = held.result(60)
    assert (answer.status, answer.headers["x-fal-error-type"]) == (503, "runner_disconnected")
    for process in (down, second):
        process.communicate()


def test_at_once_from_the_start_and_the_runners_stay(site: Site) -> None:
    held = site.hold()
    down = site.down("--now", "--keep-runners")
    assert "waits for" not in wait_for(down, "Stopped.")
    assert (down.wait(60), site.controller.process.wait(60)) == (0, 0)
    with pytest.raises((OSError, http.client.HTTPException)):
        held.result(60)
    down.communicate()
    kept = start(site.controller.state_dir)
    try:
        (runner,) = json.loads(kept.fal("runners", "list", "--json").stdout)["runners"]
        assert runner["state"] in ("IDLE", "RUNNING")
    finally:
        assert kept.stop() == 0


TOO_LONG = "a-name-that-makes-the-paths-of-its-sockets-too-long-for-the-kernel"


def test_a_stopped_controller_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    with TemporaryDirectory() as temporary:  # pytest's is too long itself
        controller = start(tmp_path / TOO_LONG / "state", environment={"TMPDIR": temporary})
        assert any(directory.name.startswith("fal-") for directory in Path(temporary).iterdir())
        assert controller.stop() == 0
        assert list(Path(temporary).iterdir()) == []


def test_a_temporary_folder_with_too_long_a_path_is_named(tmp_path: Path) -> None:
    temporary = tmp_path / TOO_LONG / TOO_LONG
    temporary.mkdir(parents=True)
    with pytest.raises(AssertionError, match="set TMPDIR to a shorter one"):
        start(tmp_path / TOO_LONG / "state", environment={"TMPDIR": str(temporary)})
