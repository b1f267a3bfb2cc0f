"""A state directory belongs to one controller: copies, missing databases, moved directories."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.controller import Controller, start
from tests.support.left_behind import groups
from tests.support.waiting import until

APP = """
import fal

class Kept(fal.App, name="kept", keep_alive=600, max_concurrency=1):
    @fal.endpoint("/")
    def answer(self) -> dict:
        return {"ok": True}
"""


@pytest.fixture
def original(tmp_path: Path) -> Generator[Controller]:
    """Run a controller with one serving runner."""
    (tmp_path / "app.py").write_text(APP)
    controller = start(tmp_path / "state")
    try:
        controller.fal("deploy", str(tmp_path / "app.py"), "--auth", "public")
        assert controller.call("/local/kept/", {}).status == 200
        yield controller
    finally:
        if controller.process.poll() is None:
            assert controller.stop() == 0


def runner_of(controller: Controller) -> list[str]:
    return controller.fal("runners", "list", "-o", "name").stdout.split()


def test_a_copy_is_refused_and_never_touches_the_originals_runners(original: Controller, tmp_path: Path) -> None:
    (runner,) = runner_of(original)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(original.state_dir), str(copy)], check=True)
    assert "No controller runs" in original.fal("down", "--state-dir", str(copy)).stderr
    with pytest.raises(AssertionError, match=r"is a copy of .*state.*--adopt-copy"):
        start(copy)
    second = start(copy, "--adopt-copy")
    assert runner_of(second) == []
    assert second.call("/local/kept/", {}).status == 200, "the copy has the app, and a runner of its own"
    assert runner_of(second) != [runner]
    assert second.stop() == 0
    assert runner_of(original) == [runner]
    assert original.call("/local/kept/", {}).status == 200
    third = start(copy)
    assert third.stop() == 0, "once adopted, a copy is a directory like any other"


def test_a_missing_database_stops_the_start(original: Controller) -> None:
    assert original.stop() == 0
    for file in original.state_dir.glob("fal.db*"):
        file.unlink()
    with pytest.raises(AssertionError, match=r"fal\.db is missing, though admin\.key says that it was in use"):
        start(original.state_dir)
    fresh = start(original.state_dir, "--new-database")
    assert fresh.fal("apps", "list", "-o", "name").stdout == ""
    assert fresh.stop() == 0


def test_nothing_is_accepted_while_the_directory_is_away(original: Controller, tmp_path: Path) -> None:
    away = tmp_path / "away"
    original.state_dir.rename(away)
    queued = original.call("/queue/local/kept/", {}, key=original.key)
    assert queued.status == 503, "the store refuses at once"
    until(lambda: original.call("/local/kept/", {}).status == 503, "the gate follows the directory")
    assert b"state directory" in original.call("/local/kept/", {}).body
    away.rename(original.state_dir)
    until(lambda: original.call("/local/kept/", {}).status == 200, "the gate follows the directory")
    assert original.call("/queue/local/kept/", {}, key=original.key).status == 200


@pytest.mark.parametrize("name", ["what?#%20, é", "deep/" * 30 + "state"], ids=["characters", "length"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    controller = start(tmp_path / name)
    try:
        controller.fal("deploy", str(tmp_path / "app.py"), "--auth", "public")
        assert controller.call("/local/kept/", {}).status == 200
        (runner,) = runner_of(controller)
        assert controller.fal("runners", "exec", runner, "--", "echo", "hello").stdout == "hello\n"
        assert "ready" in controller.fal("runners", "logs", runner).stdout
    finally:
        assert controller.stop() == 0


def test_the_controller_raises_its_limit_of_files_and_runners_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    controller = start(tmp_path / "state", ulimit="-Sn 700")
    try:
        own = Path(f"/proc/{controller.process.pid}/limits").read_text()
        assert f"Max open files {hard}" in " ".join(own.split())
        controller.fal("deploy", str(tmp_path / "app.py"), "--auth", "public")
        assert controller.call("/local/kept/", {}).status == 200
        (runner,) = runner_of(controller)
        assert controller.fal("runners", "exec", runner, "--", "sh", "-c", "ulimit -Sn").stdout == "700\n"
    finally:
        assert controller.stop() == 0
    with pytest.raises(AssertionError, match=r"may open 30 files.*ulimit -n"):
        start(tmp_path / "other", ulimit="-n 30")


def test_a_start_with_few_open_files_says_for_how_much_they_are_enough(tmp_path: Path) -> None:
    controller = start(tmp_path / "state", ulimit="-n 300")
    try:
        assert "may open only 300 files" in (controller.state_dir / "controller.log").read_text()
        greeting = controller.fal("up", "--state-dir", str(controller.state_dir))
        assert "so 65 runners with a request each are about the most" in greeting.stderr
        assert "`ulimit -n 4096`" in controller.fal("doctor", "--state-dir", str(controller.state_dir)).stdout
    finally:
        assert controller.stop() == 0


def test_a_stop_without_its_database_waits_for_no_write(original: Controller, tmp_path: Path) -> None:
    (runner,) = runner_of(original)
    original.state_dir.rename(tmp_path / "away")
    assert original.stop() == 0
    log = (tmp_path / "away" / "controller.log").read_text()
    assert "1 runner whose end is not stored: the next start looks" in log
    assert "to be killed" not in log, "the runner ended within its grace, and the stop saw that"
    until(lambda: not groups(tmp_path / "away"), "the shim has followed its worker")
    (tmp_path / "away").rename(original.state_dir)
    again = start(original.state_dir)
    assert runner not in runner_of(again)
    assert again.stop() == 0
