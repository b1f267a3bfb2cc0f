"""What a build of an image keeps outside of its own directory, and how it is removed if the build is cut off.

An engine that is killed leaves its working containers. They are found by a mark: an additional secret, which no step
mounts, so that it changes nothing. Secrets and passwords are files in memory, so that none is on disk; an engine's own
copies of them would outlive it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from fal_server.builders.container_engine import ContainerEngine

_MEMORY = Path("/dev/shm")  # noqa: S108 - only this user can read what is written there
_PREFIX = "fal-build-"


class BuildRemains:
    """Everything that builds may leave: those of this controller, and those of others that are dead.

    Args:
        root: the directory of its images; nobody else uses it.
        memory: where files are kept that must not be on disk.
    """

    def __init__(self, root: Path, memory: Path = _MEMORY) -> None:
        self._name = f"{_PREFIX}{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
        self._root = root
        self._place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        self._dead: set[str] | None = None
        self._containers_gone = False
        self._cleaning = asyncio.Lock()

    def private_files(self) -> PrivateFiles:
        """Return files in memory for one build."""
        return PrivateFiles(self._place, self._name)

    async def end_dead_builds(self) -> None:
        """Once: end builds whose controller was killed, and delete their files and secrets.

        The controller of a build holds a lock on its files. Thus the builds of every controller that this user ran are
        known to be dead or alive, also if its state directory is gone.
        """
        async with self._cleaning:
            await self._end_dead_builds()

    async def _end_dead_builds(self) -> set[str]:
        if self._dead is None:
            self._dead = await asyncio.to_thread(self._delete_dead)
        return self._dead

    async def remove_earlier(self, engine: ContainerEngine) -> None:
        """Once, before the first build: as `end_dead_builds`; remove working containers too, which takes the engine."""
        async with self._cleaning:
            dead = await self._end_dead_builds()
            if not self._containers_gone:
                await self.remove_containers(engine, self._name, *dead)
                self._containers_gone = True

    def _delete_dead(self) -> set[str]:
        """Return the marks of the builds that are dead."""
        dead: set[str] = set()
        for directory in self._place.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # it has just ended, or belongs to somebody else
                handle = _lock(directory, wait=False)
                try:
                    _kill_engines(f"id={directory.name},")
                    shutil.rmtree(directory, ignore_errors=True)
                    dead.add(directory.name)
                finally:
                    os.close(handle)
        _kill_engines(f"id={self._name}-")
        for directory in self._root.glob("build-*"):
            shutil.rmtree(directory, ignore_errors=True)
        return dead

    async def remove_containers(self, engine: ContainerEngine, *marks: str) -> None:
        """Remove the working containers of builds whose mark begins so; docker's service does that itself."""
        if engine.path.name == "docker":
            return
        code, lines = await engine.answer("info", "--format", "{{.Store.GraphRoot}}")
        if code != 0 or not lines:
            return
        for container in await asyncio.to_thread(lambda: list(_working_containers(Path(lines[-1]), marks))):
            await engine.answer("rm", "--force", container)


class PrivateFiles:
    """Files of one build that only this user can read, in memory if the machine has such a place.

    Args:
        place: where their directory is made.
        name: what the directory's name begins with.
    """

    def __init__(self, place: Path, name: str) -> None:
        self.directory, lock = _locked_directory(place, name)
        self._held = ExitStack()
        self._held.callback(os.close, lock)

    @property
    def mark(self) -> str:
        """The id of a secret that marks the build."""
        return self.directory.name

    def write(self, name: str, text: str) -> Path:
        """Write a file and return its path."""
        file = self.directory / name
        file.touch(mode=0o600)
        file.write_text(text)
        return file

    def close(self) -> None:
        """Delete the files, if that has not happened yet."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._held.close()


def _locked_directory(place: Path, name: str) -> tuple[Path, int]:
    """Make a directory that is locked as long as this process lives."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
        with suppress(FileNotFoundError):  # another controller has taken it for a dead one's and deleted it
            return directory, _lock(directory, wait=True)


def _lock(directory: Path, *, wait: bool) -> int:
    """Lock a directory of this user and return the descriptor that holds the lock.

    Raises:
        OSError: it is locked, is gone, or belongs to somebody else.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid != os.getuid():
            raise PermissionError(f"{directory} belongs to somebody else")
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.stat()  # it may have been deleted before it was locked
    except BaseException:
        os.close(handle)
        raise
    return handle


def _kill_engines(mark: str) -> None:
    """Kill the engines of a build that nobody waits for, with all that they started."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended, or belongs to somebody else
            if mark.encode() in place.read_bytes():
                os.killpg(int(place.parent.name), signal.SIGKILL)


def _working_containers(storage: Path, marks: tuple[str, ...]) -> Iterator[str]:
    """Yield the ids of the working containers in an engine's storage that carry one of some marks."""
    for description in storage.glob("*-containers/*/userdata/buildah.json"):
        with suppress(OSError):  # another build has just ended
            text = description.read_bytes()
            if any(f"id={mark}".encode() in text for mark in marks):
                yield description.parent.parent.name
