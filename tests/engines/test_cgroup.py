"""Control groups of version 2: used if the machine has them, and never another's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fal_runner.process.proc import process_info, tag_of
from fal_server.core.lifecycle import Event
from fal_server.engines.local.cgroup import RunnerGroups, end_group

MARK = tag_of("a token of these tests")


def fake(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A directory that looks like a cgroup2 file system as far as it can, and the two files of /proc that name it."""
    base = tmp_path / "cgroup" / "fal.service"
    base.mkdir(parents=True)
    (base / "cgroup.procs").write_text("")
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    mounts.write_text(f"proc /proc proc rw 0 0\ncgroup2 {tmp_path / 'cgroup'} cgroup2 rw 0 0\n")
    own.write_text("4:memory:/x\n0::/fal.service\n")
    return base, mounts, own


@pytest.mark.parametrize(
    ("mounts", "own"),
    [
        ("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", "1:cpu:/\n"),
        ("", "0::/\n"),
        ("cgroup2 /nowhere/at/all cgroup2 rw 0 0\n", "0::/user.slice\n"),
        ("cgroup2 /nowhere cgroup2 rw 0 0\n", "1:cpu:/\n"),
    ],
)
def test_a_machine_without_groups_of_version_2(tmp_path: Path, mounts: str, own: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "own").write_text(own)
    assert RunnerGroups.detect(tmp_path / "mounts", tmp_path / "own") is None
    assert RunnerGroups.detect(tmp_path / "missing", tmp_path / "own") is None


def test_a_kernel_that_cannot_kill_a_group(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path)
    assert RunnerGroups.detect(mounts, own) is None
    assert [path.name for path in base.iterdir()] == ["cgroup.procs"]


async def test_a_runner_is_put_into_a_group_which_is_noted_and_removed(tmp_path: Path) -> None:
    base, _, _ = fake(tmp_path)
    directory = tmp_path / "runner"
    directory.mkdir()
    assert RunnerGroups(base).admit([4711], MARK, directory)
    group = base / f"fal-{MARK}"
    assert (group / "cgroup.procs").read_text() == "4711"
    # What the kernel would do:
    (group / "cgroup.procs").unlink()
    (group / "cgroup.kill").touch()
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    killing = asyncio.create_task(end_group(directory, MARK))
    await asyncio.wait([killing], timeout=0)
    assert (group / "cgroup.kill").read_text() == "1"
    assert not killing.done()
    (group / "cgroup.kill").unlink()
    (group / "cgroup.events").unlink()
    await killing
    assert not group.exists()


def test_where_it_is_refused_the_runner_has_none(tmp_path: Path) -> None:
    directory = tmp_path / "runner"
    directory.mkdir()
    assert not RunnerGroups(tmp_path / "missing").admit([4711], MARK, directory)


async def test_the_group_of_another_is_not_ended(tmp_path: Path) -> None:
    base, _, _ = fake(tmp_path)
    foreign = base / "somebody.slice"
    foreign.mkdir()
    (foreign / "cgroup.kill").touch()
    directory = tmp_path / "runner"
    directory.mkdir()
    (directory / "cgroup").write_text(str(foreign))
    await end_group(directory, MARK)
    await end_group(tmp_path / "missing", MARK)
    assert (foreign / "cgroup.kill").read_text() == ""


async def test_a_daemon_that_hides_ends_with_its_shim(rig: Any) -> None:
    """A daemon leaves its session and environment by a double fork; then its shim is killed.

    With a control group nothing can hide; without one, what still carries the mark is found.
    """
    hides = RunnerGroups.detect() is not None

    def app() -> None:
        import subprocess
        import threading

        command = "setsid sleep 1000 >/dev/null 2>&1 & echo daemon $!"
        print(subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True).stdout, flush=True)
        threading.Event().wait()

    environment: dict[str, str] | None = {"PATH": os.environ["PATH"]} if hides else None
    runner = await rig.start(app)
    line = await rig.lines.until(runner.runner_id, "daemon")
    daemon = process_info(int(line.message.rpartition(" ")[2]))
    assert daemon is not None
    os.kill(rig.shim(runner).pid, signal.SIGKILL)
    await rig.until(runner, Event.GONE)
    seen = process_info(daemon.pid)
    assert seen is None or seen.started_ticks != daemon.started_ticks or not seen.alive
    assert rig.alive(runner) == []


async def test_no_group_is_left(rig: Any) -> None:
    runner = await rig.start(lambda: None)
    note = rig.root / "runners" / runner.runner_id / "cgroup"
    group = Path(note.read_text()) if note.exists() else Path("/nowhere")
    await rig.until(runner, Event.GONE)
    await rig.engine.release(runner.runner_id)
    assert not group.exists()


def test_a_process_that_is_not_in_the_group_stays(tmp_path: Path) -> None:
    groups = RunnerGroups.detect()
    outside, inside = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    admitted = groups is not None and groups.admit([inside.pid], MARK, tmp_path)
    asyncio.run(end_group(tmp_path, MARK))
    assert outside.poll() is None
    if admitted:
        assert inside.wait(30) == -signal.SIGKILL
    for process in (outside, inside):
        process.kill()
        process.wait()
