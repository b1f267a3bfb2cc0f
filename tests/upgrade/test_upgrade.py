"""An upgrade from the newest release to this version. The release's state directory and runners stay."""

from __future__ import annotations

import json
import signal
import tarfile
import tempfile
import threading
import urllib.error
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.keep_release import archive_of, newest_release
from tests.support.controller import ROOT, Controller, start
from tests.support.left_behind import groups, kill_everything, nothing_is_left, sequence_faults, worker_of
from tests.support.postgresql import Postgresql, postgresql
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
    """A state directory, first with the release's controller.

    Args:
        database: the variable that names a database; empty for a file of the directory.
    """

    def __init__(self, folder: Path, database: Mapping[str, str]) -> None:
        self.folder = folder
        self.database = database
        release = folder / "release"
        with tarfile.open(archive_of(newest_release((ROOT / "CHANGELOG.md").read_text()))) as packed:
            packed.extractall(release, filter="data")
        # Without the safe path, the working directory with this version would come first.
        of_release = {"PYTHONPATH": str(release), "PYTHONSAFEPATH": "1", **database}
        self.controller = start(folder / "state", environment=of_release, webhook_allow="", isolation="")
        assert str(release) in Path(f"/proc/{self._warm_shim()}/environ").read_text()

    def _warm_shim(self) -> int:
        """Return the pid of a process started for the next runner. The controller started it."""
        children = Path(f"/proc/{self.controller.process.pid}/task/{self.controller.process.pid}/children")
        return int(until(children.read_text, "a shim is started ahead").split()[0])

    def deploy(self, version: int) -> None:
        path = self.folder / f"old_{version}.py"
        path.write_text(_APP.replace("VERSION", str(version)))
        self.controller.fal("deploy", str(path))

    def ask(self, path: str = "/local/old/") -> dict[str, Any]:
        answer = self.controller.call(path, {}, key=self.controller.key)
        assert answer.status == 200, answer.body
        return dict(answer.json())

    def upgrade(self, how: signal.Signals) -> Controller:
        self.controller.process.send_signal(how)
        self.controller.process.wait(60)
        self.controller = start(self.folder / "state", environment=self.database)
        return self.controller

    @contextmanager
    def queueing(self) -> Iterator[list[str]]:
        """Queue requests one after another while the block runs. Yield the ids of accepted ones."""
        accepted: list[str] = []
        ended = threading.Event()

        def queue() -> None:
            while not ended.is_set():
                try:
                    answer = self.controller.call("/queue/local/old", {}, key=self.controller.key)
                except (urllib.error.URLError, ConnectionError, OSError):
                    continue  # no controller is there now
                if answer.status == 200:
                    accepted.append(str(dict(answer.json())["request_id"]))

        with_us = threading.Thread(target=queue, daemon=True)
        with_us.start()
        try:
            yield accepted
        finally:
            ended.set()
            with_us.join()


@contextmanager
def made(folder: Path, database: Mapping[str, str]) -> Generator[Site]:
    site = Site(folder, database)
    try:
        yield site
    finally:
        if site.controller.process.poll() is None:
            site.controller.stop()
        kill_everything(folder / "state")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path, {}) as site:
        yield site


@pytest.fixture
def server() -> Iterator[Postgresql]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


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


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL], ids=["in order", "by kill -9"])
def test_an_upgrade_on_postgresql_while_requests_come(how: signal.Signals, server: Postgresql, tmp_path: Path) -> None:
    with made(tmp_path, {"FAL_DATABASE_URL": server.make("fal")}) as site:
        site.controller.fal("secrets", "set", "WORD=kept")
        site.deploy(1)
        before = site.ask()
        version = "select version_num from alembic_version"
        of_release = server.ask(version, "fal")
        with site.queueing() as accepted:
            until(lambda: len(accepted) >= 10, "requests are queued with the release")
            controller = site.upgrade(how)
            so_far = len(accepted)
            until(lambda: len(accepted) >= so_far + 10, "requests are queued with this version")
        assert server.ask(version, "fal") > of_release, "the database was migrated"
        assert site.ask() == before, "the runner of the release serves on"
        for request in accepted:
            place = f"/queue/local/old/requests/{request}"
            until(lambda: controller.call(f"{place}/status", key=controller.key).status == 200, "it is done")  # noqa: B023
            assert controller.call(place, key=controller.key).json() == before
        stored = server.ask("select count(*) from requests where state <> 'COMPLETED'", "fal")
        assert stored == "0"
        site.deploy(2)
        assert site.ask()["version"] == 2
        assert controller.stop() == 0
        assert groups(controller.state_dir) == {}
