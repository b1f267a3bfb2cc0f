"""Removes what an interrupted build of an image leaves outside its directory.

An engine that is killed leaves its working containers. They are found by a mark: an additional secret, which changes
nothing, because no step mounts it. Secrets and passwords are files in memory, so that none is on disk; the engine's own
copies would outlive the engine.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from fal_runner.process.removal import discard_tree
from fal_server.builders.container_engine import ContainerEngine

_MEMORY = Path("/dev/shm")  # noqa: S108 - only this user can read what is written there
_PREFIX = "fal-build-"


class BuildRemains:
    """What builds may leave: those of this controller and of dead ones.

    Args:
        root: the directory of its images; nobody else uses it.
        memory: holds the files that must not be on disk.
    """

    def __init__(self, root: Path, memory: Path = _MEMORY) -> None:
        self._name = f"{_PREFIX}{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
        self._root = root
        self._place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        self._dead: set[str] | None = None
        self._containers_gone = False
        self._cleaning = asyncio.Lock()

    def private_files(self) -> PrivateFiles:
        """Create the private files of one build."""
        return PrivateFiles(self._place, self._name)

    async def end_dead_builds(self) -> None:
        """End builds of killed controllers, and delete their files and secrets. Only the first call does anything.

        The controller of a build locks its files. So this works for all controllers of this user, even if a state
        directory is gone.
        """
        async with self._cleaning:
            await self._end_dead_builds()

    async def _end_dead_builds(self) -> set[str]:
        if self._dead is None:
            self._dead = await asyncio.to_thread(self._delete_dead)
        return self._dead

    async def remove_earlier(self, engine: ContainerEngine) -> None:
        """Do the same before the first build. Also remove working containers, for which the engine is needed."""
        async with self._cleaning:
            dead = await self._end_dead_builds()
            if not self._containers_gone:
                await self.remove_containers(engine, self._name, *dead)
                self._containers_gone = True

    def _delete_dead(self) -> set[str]:
        """Delete the files of dead builds; return their marks."""
        dead: set[str] = set()
        for directory in self._place.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # it has just ended, or belongs to another user
                handle = _lock(directory, wait=False)
                try:
                    _kill_engines(f"id={directory.name},")
                    discard_tree(directory)
                    dead.add(directory.name)
                finally:
                    os.close(handle)
        _kill_engines(f"id={self._name}-")
        for directory in self._root.glob("build-*"):
            discard_tree(directory)
        return dead

    async def remove_containers(self, engine: ContainerEngine, *marks: str) -> None:
        """Remove the working containers of builds whose mark starts with this. Docker's service does so by itself."""
        storage = await engine.storage()
        if storage is None:
            return
        for container in await asyncio.to_thread(lambda: list(_working_containers(storage, marks))):
            await engine.answer("rm", "--force", container)


class PrivateFiles:
    """Files of one build that only this user can read. They are in memory if possible.

    Args:
        place: the parent of their directory.
        name: the prefix of the directory's name.
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
        """Delete the files; a second call does nothing."""
        discard_tree(self.directory)
        self._held.close()


def _locked_directory(place: Path, name: str) -> tuple[Path, int]:
    """Create a directory that is locked as long as this process lives."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
        with suppress(FileNotFoundError):  # another controller deleted it before it was locked
            return directory, _lock(directory, wait=True)


def _lock(directory: Path, *, wait: bool) -> int:
    """Lock a directory of this user. Return the descriptor that holds the lock.

    Raises:
        OSError: it is locked or deleted, or belongs to another user.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid != os.getuid():
            raise PermissionError(f"{directory} belongs to somebody else")
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.stat()  # it may have been deleted before the lock
    except BaseException:
        os.close(handle)
        raise
    return handle


def _kill_engines(mark: str) -> None:
    """Kill the engines of an abandoned build, with all that they started."""
    # A pattern with a part below a process would look at it outside of `suppress`, and a process may end meanwhile.
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or belongs to another user
            if mark.encode() in (process / "cmdline").read_bytes():
                os.killpg(int(process.name), signal.SIGKILL)


def _working_containers(storage: Path, marks: tuple[str, ...]) -> Iterator[str]:
    """Yield the ids of working containers that have one of these marks."""
    for description in storage.glob("*-containers/*/userdata/buildah.json"):
        with suppress(OSError):  # another build has just ended
            text = description.read_bytes()
            if any(f"id={mark}".encode() in text for mark in marks):
                yield description.parent.parent.name
