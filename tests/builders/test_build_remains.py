"""What builds leave is removed if their controller is dead. It is kept while the controller lives."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fal_server.builders.build_remains import BuildRemains
from fal_server.builders.container_engine import ContainerEngine
from tests.support.containers import make_engine

# Starts a build like a controller, prints the path of its files, and lives until its input ends.
BUILDING = """
import sys
from pathlib import Path
from fal_server.builders.build_remains import BuildRemains
files = BuildRemains(Path(sys.argv[2]), Path(sys.argv[1])).private_files()
files.write("token", "hush-hush")
print(files.directory, flush=True)
sys.stdin.read()
"""


class Building:
    """Another controller, during a build."""

    def __init__(self, memory: Path, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILDING, memory, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.directory = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    (tmp_path / "memory").mkdir()
    return tmp_path / "memory"


@pytest.fixture
def other(memory: Path, tmp_path: Path):
    found = Building(memory, tmp_path / "a-directory-that-is-gone")
    yield found
    found.kill()


async def test_the_files_of_a_dead_controller_are_deleted_whoever_it_was(memory, other, tmp_path):
    assert (other.directory / "token").read_text() == "hush-hush"
    other.kill()
    await BuildRemains(tmp_path / "images", memory).end_dead_builds()
    assert not other.directory.exists()


async def test_a_build_that_is_under_way_elsewhere_is_left_alone(memory, other, tmp_path):
    remains = BuildRemains(tmp_path / "images", memory)
    own = remains.private_files()
    await BuildRemains(tmp_path / "others", memory).end_dead_builds()
    assert (other.directory / "token").read_text() == "hush-hush"
    assert own.directory.exists()
    own.close()
    assert not own.directory.exists()


async def test_an_engine_whose_controller_is_dead_is_killed(memory, other, tmp_path):
    engine = await asyncio.create_subprocess_exec(
        *("sh", "-c", "read line; true", "podman", f"id={other.directory.name},src=none"),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    remains = BuildRemains(tmp_path / "images", memory)
    other.kill()
    await remains.end_dead_builds()
    assert await engine.wait() == -9


async def test_an_engine_is_found_while_other_processes_end(memory, other, tmp_path, monkeypatch):
    engine = await asyncio.create_subprocess_exec(
        *("sh", "-c", "read line; true", "podman", f"id={other.directory.name},src=none"),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    stat = os.stat

    def gone(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        """Fail as for a process that has just ended. Its files are known by name alone."""
        if str(path).startswith("/proc/") and str(path) != "/proc":
            raise ProcessLookupError(errno.ESRCH, "No such process", str(path))
        return stat(path, *arguments, **options)

    remains = BuildRemains(tmp_path / "images", memory)
    other.kill()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", gone)
        await remains.end_dead_builds()
    assert await engine.wait() == -9
    assert not other.directory.exists()


async def test_working_containers_of_dead_builds_are_removed_and_no_others(memory, other, tmp_path):
    fake = make_engine(tmp_path / "bin")
    storage = tmp_path / "graph"
    for name, mark in {"dead": other.directory.name, "alive": "fal-build-0-1"}.items():
        place = storage / "overlay-containers" / name / "userdata"
        place.mkdir(parents=True)
        (place / "buildah.json").write_text(f'["--secret", "id={mark},src=none"]')
    other.kill()
    engine = ContainerEngine(path=fake.path, variables=fake.variables(CONTAINERS_STORAGE=str(storage)))
    await BuildRemains(tmp_path / "images", memory).remove_earlier(engine)
    assert [call["arguments"][-1] for call in fake.calls("rm")] == ["dead"]
