"""A runner gets its machine type's memory, processes, and processor share."""

from __future__ import annotations

import pickle
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal_server.core.lifecycle import End, Event
from fal_server.core.logs import LogLevel
from fal_server.core.machines import RunnerLimits
from fal_server.engines.local.cgroup import RunnerGroups
from fal_server.engines.local.cgroup_places import CPU, MEMORY, PROCESSES, GroupFiles, Places, find_places

SMALL = RunnerLimits(machine_type="TINY", memory_mib=128, processes=40, cpu_weight=50, larger="XS")
TAKES_TOO_MUCH = "machine type TINY with 128 MiB ran out of memory: deploy it with a larger one, such as XS"


def enforced(controller: str) -> bool:
    """Return whether this machine's control groups limit it. Otherwise the tests assert the opposite."""
    return controller in find_places(Path("/proc/self/mounts"), Path("/proc/self/cgroup"), GroupFiles()).bounds


def none(root: Path) -> RunnerGroups:
    """Return no control groups, as for most users."""
    return RunnerGroups(Places(), root / "control-groups")


def takes(mib: int, *, stays: bool = False) -> Callable[[], int]:
    """Return a function that takes this much memory, or holds it. A shim measures only now and then."""

    def app() -> int:
        import threading

        held = bytearray(mib * 1024 * 1024)
        for page in range(0, len(held), 4096):
            held[page] = 1
        if stays:
            threading.Event().wait()
        return len(held)

    return app


def waits() -> None:
    """Return a function that runs until it is ended."""
    import threading

    threading.Event().wait()


@pytest.fixture(params=["what the machine has", "no groups"])
async def bounded(request: pytest.FixtureRequest, rig: Any) -> Any:
    """Return an engine that limits memory. Control groups limit it, or shims measure it."""
    if request.param == "no groups":
        await rig.restart(groups=none(rig.root))
    return rig


async def test_a_runner_that_takes_too_much_ends_and_says_so(bounded: Any) -> None:
    runner = await bounded.start(takes(300, stays=True), limits=SMALL)
    gone = await bounded.until(runner, Event.GONE)
    assert gone.end is End.OUT_OF_MEMORY
    assert gone.exit_code == 128 + signal.SIGKILL
    assert gone.reason == f"worker was killed by signal 9 (SIGKILL): {TAKES_TOO_MUCH}"
    assert bounded.lines.of(runner.runner_id)[-1].message == gone.reason


async def test_a_runner_that_keeps_to_its_size_ends_well(bounded: Any) -> None:
    runner = await bounded.start(takes(60), limits=SMALL)
    result = await bounded.engine.result(runner)
    assert not result.raised
    gone = await bounded.until(runner, Event.GONE)
    assert (gone.end, gone.exit_code) == (End.ITSELF, 0)


async def test_what_a_worker_starts_counts_with_it(bounded: Any) -> None:
    def app() -> None:
        import os
        import subprocess
        import sys

        code = "held = bytearray(70 << 20); print('held', flush=True); input()"
        children = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        ended = [child.stdout is not None and child.stdout.readline() == b"" for child in children]
        if not any(ended):
            os.wait()  # for the kernel to end one of them; without groups the shim ends this process
        raise RuntimeError("a child is gone")

    runner = await bounded.start(app, limits=SMALL)
    gone = await bounded.until(runner, Event.GONE)
    assert gone.end is End.OUT_OF_MEMORY
    assert gone.reason.endswith(TAKES_TOO_MUCH)


async def test_more_processes_than_its_type_has_are_refused(rig: Any) -> None:
    def app() -> int:
        import subprocess

        children: list[subprocess.Popen[bytes]] = []
        refused = False
        while len(children) < 60 and not refused:
            try:
                children += [subprocess.Popen(["sleep", "1000"])]
            except OSError:
                refused = True
        for child in children:
            child.kill()
            child.wait()
        return len(children)

    runner = await rig.start(app, limits=SMALL)
    result = await rig.engine.result(runner)
    assert not result.raised, result.traceback
    assert (pickle.loads(result.definition) < 40) is enforced(PROCESSES)


def groups_of(pid: int) -> list[str]:
    """Return the control groups of a process, as in cgroups(7)."""
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


async def test_the_worker_and_commands_are_in_the_groups_and_the_shim_is_not_bounded(rig: Any) -> None:
    runner = await rig.start(waits, limits=SMALL)
    [worker, *_] = rig.alive(runner)
    ran = await rig.run(runner, "cat", "/proc/self/cgroup")
    assert ran.code == 0
    # The worker has the pid of launch.py, which enters the groups before it becomes the worker.
    said = await rig.run(runner, "env")
    assert b"FAL_CONTROL_GROUPS" not in said.stdout
    assert ran.stdout.decode().splitlines() == groups_of(worker)
    shim = [line for line in groups_of(rig.shim(runner).pid) if line.split(":")[1] in {MEMORY, PROCESSES, CPU}]
    assert not any("/fal-" in line for line in shim)
    bounded = any(enforced(name) for name in (MEMORY, PROCESSES, CPU))
    assert any("/fal-" in line for line in groups_of(worker)) is bounded


async def test_the_groups_outlive_the_controller_and_end_with_the_runner(rig: Any) -> None:
    runner = await rig.start(waits, limits=SMALL)
    note = rig.root / "runners" / runner.runner_id / "cgroup"
    groups = [Path(line) for line in note.read_text().splitlines()] if note.exists() else []
    assert all(group.is_dir() for group in groups)
    assert bool(groups) is enforced(MEMORY)
    assert await rig.restart(adopt=runner)
    await rig.engine.release_strangers([runner.runner_id])
    assert all(group.is_dir() for group in groups)
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    await rig.engine.release(runner.runner_id)
    assert not any(group.exists() for group in groups)


async def test_what_a_dead_controller_left_is_swept(rig: Any) -> None:
    groups = RunnerGroups.detect(rig.root)
    (rig.root / "gone").mkdir()
    left = groups.make("0" * 32, rig.root / "gone", SMALL)
    process = sleeper()
    for group in left.entered:
        (group / "cgroup.procs").write_text(str(process.pid))
    (rig.root / "gone" / "cgroup").unlink()
    (rig.root / "gone").rmdir()
    await rig.restart()
    await rig.engine.release_strangers([])
    assert not any(group.exists() for group in left.entered)
    if not left.entered:
        process.kill()
    assert process.wait(30) == -signal.SIGKILL


async def test_another_controllers_groups_are_not_swept(rig: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    others = RunnerGroups.detect(tmp_path / "other")
    theirs = others.make("1" * 32, tmp_path / "other", SMALL)
    await rig.engine.release_strangers([])
    assert all(group.is_dir() for group in theirs.entered)
    await others.end_others([])
    assert not any(group.exists() for group in theirs.entered)


async def test_a_worker_that_was_started_ahead_is_bounded_too(warm: Any) -> None:
    await warm.run(lambda: 1)
    await warm.worker()
    runner = await warm.rig.start_launch(warm.launch(takes(300), limits=SMALL))
    gone = await warm.rig.until(runner, Event.GONE)
    assert gone.end is End.OUT_OF_MEMORY


async def test_a_killed_child_is_told_and_the_worker_goes_on(rig: Any) -> None:
    """Only the kernel's kills are told. A shim that measures does not know whose memory it is."""
    code = "held = bytearray(300 << 20)\nfor page in range(0, len(held), 4096): held[page] = 1"

    def app() -> int:
        import subprocess
        import sys
        import threading

        ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
        print("the child ended with", ended, flush=True)
        threading.Event().wait()
        return 0

    runner = await rig.start(app, limits=SMALL)
    if not enforced(MEMORY):
        assert (await rig.until(runner, Event.GONE)).end is End.OUT_OF_MEMORY
        return
    await rig.lines.until(runner.runner_id, "the child ended with -9")
    await rig.lines.until(runner.runner_id, f"1 process was killed: {TAKES_TOO_MUCH}")
    assert rig.alive(runner)


def writes(directory: str, mib: int, deleted: bool) -> Callable[[], None]:
    def app() -> None:
        import os
        import threading

        path = Path(directory) / "large"
        file = path.open("wb")
        if deleted:
            path.unlink()
        file.writelines(os.urandom(1 << 20) for _ in range(mib))
        file.flush()
        print("written", flush=True)
        threading.Event().wait()

    return app


@pytest.mark.parametrize(("directory", "deleted"), [("/app", False), ("/tmp", False), ("/tmp", True)])
async def test_a_runner_that_fills_its_disk_ends_and_says_so(rig: Any, directory: str, deleted: bool) -> None:
    runner = await rig.start(writes(directory, 40, deleted), limits=replace(SMALL, disk_mib=32))
    gone = await rig.until(runner, Event.GONE)
    assert gone.end is End.OUT_OF_DISK
    assert gone.reason.startswith("worker was killed by signal 9 (SIGKILL): machine type ")
    assert "has 32 MiB for /app and /tmp, and these held more" in gone.reason
    assert rig.lines.of(runner.runner_id)[-1].message == gone.reason


async def test_a_runner_near_its_disks_end_is_warned_and_lives(rig: Any) -> None:
    runner = await rig.start(writes("/tmp", 30, False), limits=replace(SMALL, disk_mib=32))
    said = await rig.lines.until(runner.runner_id, "/app and /tmp hold 30 of 32 MiB")
    assert said.level is LogLevel.WARNING
    assert rig.alive(runner)
