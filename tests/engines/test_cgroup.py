"""Control groups are used if possible, and limited by the machine type. They are never those of others."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fal_runner.process.proc import process_info, tag_of
from fal_server.core.lifecycle import Event
from fal_server.core.machines import RunnerLimits
from fal_server.engines.local.cgroup import RunnerGroup, RunnerGroups, end_group
from fal_server.engines.local.cgroup_places import CPU, MEMORY, PROCESSES, GroupFiles, Place, Places, find_places

MOUNTS, OWN = Path("/proc/self/mounts"), Path("/proc/self/cgroup")
MARK = tag_of("a token of these tests")
SMALL = RunnerLimits(machine_type="TINY", memory_mib=128, processes=40, cpu_weight=50)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


class FakeKernel(GroupFiles):
    """Version 2 as directories. A new group has the files that its parent delegates."""

    def make(self, group: Path) -> None:
        if group.exists():
            return
        group.mkdir()
        handed = (group.parent / "cgroup.subtree_control").read_text().split()
        files = {"cgroup.procs": "", "cgroup.kill": "", "cgroup.subtree_control": "", "cgroup.controllers": ""}
        files["cgroup.controllers"] = " ".join(handed)
        for name, of in (("memory.max", MEMORY), ("memory.swap.max", MEMORY), ("pids.max", PROCESSES)):
            if of in handed:
                files[name] = "max"
        if CPU in handed:
            files["cpu.weight"] = "100"
        for name, text in files.items():
            (group / name).write_text(text)

    def remove(self, group: Path) -> None:
        shutil.rmtree(group)

    def write(self, file: Path, text: str) -> None:
        if not file.exists():
            raise FileNotFoundError(file)
        if file.name == "cgroup.subtree_control":
            if (file.parent / "cgroup.procs").read_text().split():
                raise OSError(errno.EBUSY, "it has processes")
            file.write_text(text.replace("+", ""))
        elif file.name == "cgroup.procs" and text == "0":
            for group in (file.parent.parent, file.parent):
                (group / "cgroup.procs").write_text("")
            file.write_text(str(os.getpid()))
        else:
            file.write_text(text)


def fake(tmp_path: Path, controllers: str = "", procs: str = "") -> tuple[Path, Path, Path]:
    """Return a directory that imitates a cgroup2 file system. Return the two files of /proc that name it, too.

    Args:
        controllers: those that the service's parent delegates.
        procs: the processes of the service's group.
    """
    base = tmp_path / "cgroup" / "fal.slice" / "fal.service"
    base.mkdir(parents=True)
    (base / "cgroup.procs").write_text(procs)
    (base / "cgroup.kill").touch()
    (base / "cgroup.controllers").write_text(controllers)
    (base / "cgroup.subtree_control").touch()
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    mounts.write_text(f"proc /proc proc rw 0 0\ncgroup2 {tmp_path / 'cgroup'} cgroup2 rw 0 0\n")
    own.write_text("4:memory:/x\n0::/fal.slice/fal.service\n")
    return base, mounts, own


@pytest.mark.parametrize(
    ("mounts", "own"),
    [
        ("cgroup /sys/fs/cgroup/net_cls cgroup rw,net_cls 0 0\n", "1:net_cls:/\n"),
        ("", "0::/\n"),
        ("cgroup2 /nowhere/at/all cgroup2 rw 0 0\n", "0::/user.slice\n"),
        ("cgroup2 /nowhere cgroup2 rw 0 0\n", "1:cpu:/\n"),
        ("cgroup /nowhere/memory cgroup rw,memory 0 0\n", "1:memory:/a\n"),
        ("nonsense\n", "nonsense\n"),
    ],
)
def test_a_machine_without_groups(tmp_path: Path, mounts: str, own: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "own").write_text(own)
    assert find_places(tmp_path / "mounts", tmp_path / "own", GroupFiles()) == Places()
    assert find_places(tmp_path / "missing", tmp_path / "own", GroupFiles()) == Places()


def test_a_kernel_that_cannot_kill_a_group(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path)
    before = sorted(path.name for path in base.iterdir())
    assert find_places(mounts, own, GroupFiles()) == Places()
    assert sorted(path.name for path in base.iterdir()) == before


def test_version_2_without_controllers_only_kills(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path, procs="1 2")
    assert find_places(mounts, own, FakeKernel()) == Places(kill=base)


def test_a_group_beside_this_process_bounds_where_its_parent_hands_that_on(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path, "memory pids", procs="1 2")
    (base.parent / "cgroup.procs").touch()
    (base.parent / "cgroup.subtree_control").write_text("memory pids")
    found = find_places(mounts, own, FakeKernel())
    place = Place(base=base.parent, version=2)
    assert found == Places(kill=base.parent, bounds={MEMORY: place, PROCESSES: place})
    assert not (base.parent / f"fal-probe-{os.getpid()}").exists()


def test_alone_in_its_group_this_process_makes_room_for_others_below(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path, "cpu io memory pids", procs=f"{os.getpid()}\n")
    found = find_places(mounts, own, FakeKernel())
    place = Place(base=base, version=2)
    assert found == Places(kill=base, bounds={MEMORY: place, PROCESSES: place, CPU: place})
    assert (base / "fal-controller" / "cgroup.procs").read_text() == str(os.getpid())
    assert (base / "cgroup.subtree_control").read_text() == "cpu memory pids"


def test_with_others_in_its_group_this_process_stays(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path, "memory pids", procs=f"{os.getpid()}\n1\n")
    assert find_places(mounts, own, FakeKernel()) == Places(kill=base)
    assert not (base / "fal-controller").exists()


def test_the_bounds_of_version_2_are_written_for_the_worker_alone(tmp_path: Path) -> None:
    base, mounts, own = fake(tmp_path, "cpu memory pids", procs=f"{os.getpid()}\n")
    kernel = FakeKernel()
    groups = RunnerGroups(find_places(mounts, own, kernel), tmp_path / "control-groups", kernel)
    directory = tmp_path / "runner"
    directory.mkdir()
    made = groups.make(MARK, directory, SMALL)
    [worker] = made.entered
    assert (made.memory, made.prewarmed) == (worker, (worker,))
    assert made.shim == worker.with_name("shim")
    assert (worker.name, worker.parent.parent) == ("runner", base)
    values = {name: (worker / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")}
    bytes_ = str(128 * 1024 * 1024)
    assert values == {"memory.max": bytes_, "memory.swap.max": "0", "pids.max": "40", "cpu.weight": "50"}
    assert made.shim is not None
    assert (made.shim / "memory.max").read_text() == "max"
    assert (directory / "cgroup").read_text().splitlines() == [str(worker), str(made.shim), str(worker.parent)]
    assert (tmp_path / "control-groups").read_text() == f"{base}\n"


async def test_a_runner_is_put_into_a_group_which_is_noted_and_removed(tmp_path: Path) -> None:
    base, mounts, _ = fake(tmp_path)
    directory = tmp_path / "runner"
    directory.mkdir()
    made = RunnerGroups(Places(kill=base), tmp_path / "control-groups", FakeKernel()).make(MARK, directory, SMALL)
    group = made.shim
    assert group is not None
    assert made.prewarmed == (group,)
    made.admit(4711, [4712])
    assert (group / "cgroup.procs").read_text() == "4712"
    # As the kernel does:
    for file in group.iterdir():
        file.unlink()
    (group / "cgroup.kill").touch()
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    killing = asyncio.create_task(end_group(directory, MARK, mounts))
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
    groups = RunnerGroups(Places(kill=tmp_path / "missing" / "place"), tmp_path / "control-groups")
    assert groups.make(MARK, directory, SMALL) == RunnerGroup()


async def test_a_forged_note_ends_nobody(tmp_path: Path) -> None:
    """One group is another runner's. One is a directory with the right name, but no control group."""
    base, mounts, _ = fake(tmp_path)
    foreign, forged = base / "somebody.slice", tmp_path / f"fal-{MARK}"
    victim = sleeper()
    directory = tmp_path / "runner"
    directory.mkdir()
    for group in (foreign, forged):
        group.mkdir()
        (group / "cgroup.procs").write_text(str(victim.pid))
        (directory / "cgroup").write_text(str(group))
        await end_group(directory, MARK, mounts)
        assert group.is_dir()
    await end_group(tmp_path / "missing", MARK, mounts)
    assert victim.poll() is None
    victim.kill()
    victim.wait()


async def test_a_daemon_that_hides_ends_with_its_shim(rig: Any) -> None:
    """A daemon leaves its session and environment by a double fork. Then its shim is killed.

    With a control group no process can hide; without one, processes with the tag are found.
    """
    hides = find_places(MOUNTS, OWN, GroupFiles()).kill is not None

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


def test_a_process_that_is_not_in_the_group_stays(tmp_path: Path) -> None:
    made = RunnerGroups.detect(tmp_path).make(MARK, tmp_path, SMALL)
    outside, inside = (sleeper() for _ in range(2))
    if made.prewarmed:
        made.admit(inside.pid, [inside.pid])
    asyncio.run(end_group(tmp_path, MARK))
    assert outside.poll() is None
    if made.prewarmed:
        assert inside.wait(30) == -signal.SIGKILL
    for process in (outside, inside):
        process.kill()
        process.wait()
