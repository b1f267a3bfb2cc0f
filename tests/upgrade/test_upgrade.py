"""From the newest release to this version, on one state directory and with runners that the release started."""

from __future__ import annotations

import json
import signal
import tarfile
from collections.abc import Generator
from pathlib import Path

import pytest

from scripts.keep_release import archive_of, newest_release
from tests.support.controller import ROOT, Controller, start
from tests.support.left_behind import kill_everything, nothing_is_left, sequence_faults, worker_of
from tests.support.waiting import until

_APP = """
import os

import fal


class Old(fal.App, name="old", keep_alive=900, max_concurrency=1):
    machine_type = "XS"
    app_auth = "private"

    @fal.endpoint("/")
    def run(self) -> dict:
        print("asked", flush=True)
        return {"runner": os.environ["FAL_RUNNER_ID"], "word": os.environ["WORD"], "version": VERSION}
"""


class Site:
    """A state directory, with the controller of the release first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        release = folder / "release"
        with tarfile.open(archive_of(newest_release((ROOT / "CHANGELOG.md").read_text()))) as packed:
            packed.extractall(release, filter="data")
        # Without the safe path the working directory, which has this version, would come first.
        of_release = {"PYTHONPATH": str(release), "PYTHONSAFEPATH": "1"}
        self.controller = start(folder / "state", environment=of_release, webhook_allow="", isolation="")
        assert str(release) in Path(f"/proc/{self._warm_shim()}/environ").read_text()

    def _warm_shim(self) -> int:
        """Return the pid of a process that the controller started for the next runner."""
        children = Path(f"/proc/{self.controller.process.pid}/task/{self.controller.process.pid}/children")
        return int(until(children.read_text, "a shim is started ahead").split()[0])

    def deploy(self, version: int) -> None:
        path = self.folder / f"old_{version}.py"
        path.write_text(_APP.replace("VERSION", str(version)))
        self.controller.fal("deploy", str(path))

    def ask(self, path: str = "/local/old/") -> dict[str, object]:
        answer = self.controller.call(path, {}, key=self.controller.key)
        assert answer.status == 200, answer.body
        return dict(answer.json())

    def upgrade(self, how: signal.Signals) -> Controller:
        self.controller.process.send_signal(how)
        self.controller.process.wait(60)
        self.controller = start(self.folder / "state")
        return self.controller


@pytest.fixture
def site(tmp_path: Path) -> Generator[Site]:
    site = Site(tmp_path)
    yield site
    if site.controller.process.poll() is None:
        site.controller.stop()
    kill_everything(tmp_path / "state")


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL], ids=["in order", "by kill -9"])
def test_a_runner_of_the_release_serves_on(site: Site, how: signal.Signals) -> None:
    fal = site.controller.fal
    fal("secrets", "set", "WORD=kept")
    site.deploy(1)
    before = site.ask()
    runner = str(before["runner"])
    worker = worker_of(site.controller.state_dir, runner)
    done = site.ask("/queue/local/old")["request_id"]
    result = f"/queue/local/old/requests/{done}"
    until(lambda: site.controller.call(f"{result}/status", key=site.controller.key).status == 200, "it is done")
    kept = fal("runners", "exec", runner, "--detach", "--", "sleep", "1000").stdout.strip()
    controller = site.upgrade(how)

    assert site.ask() == before
    assert worker_of(controller.state_dir, runner) == worker
    assert controller.call(result, key=controller.key).json() == before
    assert controller.fal("runners", "exec", runner, "--", "echo", "entered").stdout == "entered\n"
    assert kept in controller.fal("runners", "execs", runner).stdout
    until(
        lambda: controller.fal("runners", "logs", runner).stdout.count("asked") == 3,
        "the lines that were printed before and after are stored",
    )
    assert sequence_faults(controller.state_dir) == []
    assert "WORD" in controller.fal("secrets", "list").stdout

    site.deploy(2)
    after = site.ask()
    assert after == {"runner": after["runner"], "word": "kept", "version": 2}
    assert after["runner"] != runner
    ended = until(
        lambda: json.loads(controller.fal("runners", "get", runner, "--json").stdout).get("ended_at"),
        "the runner of the release ends",
    )
    assert ended
    assert controller.stop() == 0
    nothing_is_left(controller.state_dir)
