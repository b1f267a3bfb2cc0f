"""A controller on PostgreSQL: the main job, a crash, a second controller. No password is anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller import ROOT, Controller, start
from tests.support.left_behind import groups
from tests.support.postgresql import Postgresql, postgresql
from tests.support.waiting import until

PASSWORD = "hunter2-database"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


@pytest.fixture
def variables(server: Postgresql) -> dict[str, str]:
    return {"FAL_DATABASE_URL": server.make("fal").replace("fal@", f"fal:{PASSWORD}@")}


def only_runner(controller: Controller) -> str:
    (runner,) = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return runner["runner_id"]


def test_a_controller_on_postgresql(server: Postgresql, variables: dict[str, str], tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    controller = start(state_dir, environment=variables)
    controller.fal("secrets", "set", "TOKEN=hunter2-secret")
    controller.fal("deploy", str(ROOT / "examples" / "hello.py"), "--app-name", "kept", "--auth", "public")
    assert controller.call("/local/kept", {"name": "a"}).status == 200
    runner_id = only_runner(controller)
    assert "DATABASE" not in controller.fal("runners", "exec", runner_id, "--", "env").stdout

    second = subprocess.run(
        [sys.executable, "-m", "fal_server", "--state-dir", str(tmp_path / "second")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 3
    assert "another controller uses this database" in second.stderr

    controller.process.kill()
    controller.process.wait()
    controller = start(state_dir, environment=variables)
    assert controller.call("/local/kept", {"name": "b"}).status == 200
    assert only_runner(controller) == runner_id
    assert "ready after" in controller.fal("runners", "logs", runner_id).stdout
    assert controller.stop() == 0

    assert not (state_dir / "fal.db").exists()
    held = server.dump("fal")
    assert runner_id.encode() in held
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in held + written + second.stderr.encode()


def test_a_stop_without_its_database_ends_the_runners(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        with postgresql(Path(directory)) as server:
            controller = start(tmp_path / "state", environment={"FAL_DATABASE_URL": server.make("fal")})
            controller.fal("deploy", str(ROOT / "examples" / "hello.py"), "--app-name", "kept", "--auth", "public")
            assert controller.call("/local/kept", {"name": "a"}).status == 200
        controller.process.send_signal(signal.SIGTERM)
        log = tmp_path / "state" / "controller.log"
        until(lambda: "cannot be stored yet" in log.read_text(), "the stop notices that its database is gone")
        assert controller.stop() == 0, "the second signal ends at once"
    assert groups(tmp_path / "state") == {}
