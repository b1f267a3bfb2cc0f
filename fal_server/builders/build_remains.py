"""What a build of an image keeps outside of its own directory, and how it is removed if the build is cut off.

An engine that is killed leaves its working containers. They are found by a mark: an additional secret, which no step
mounts, so that it changes nothing. Secrets and passwords are files in memory, so that none is on disk; an engine's own
copies of them would outlive it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fal_server.builders.container_engine import ContainerEngine

_MEMORY = Path("/dev/shm")  # noqa: S108 - only this user can read what is written there


class BuildRemains:
    """Everything that the builds of one controller may leave.

    Args:
        root: the directory of its images; nobody else uses it.
    """

    def __init__(self, root: Path) -> None:
        self._name = f"fal-build-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
        self._root = root
        self._clean = False
        self._cleaning = asyncio.Lock()

    def new_mark(self) -> str:
        """Return the id of a secret that marks a build."""
        return f"{self._name}-{secrets.token_hex(8)}"

    def private_files(self) -> PrivateFiles:
        """Return files in memory for one build."""
        return PrivateFiles(self._name)

    async def remove_earlier(self, engine: ContainerEngine) -> None:
        """Once, before the first build: remove what a controller left that was killed during a build."""
        async with self._cleaning:
            if self._clean:
                return
            await asyncio.to_thread(self._end_builds)
            await asyncio.to_thread(self._remove_directories)
            await self.remove_containers(engine, self._name)
            self._clean = True

    def _end_builds(self) -> None:
        """Kill the engines of builds that nobody waits for, with all that they started."""
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has just ended, or belongs to somebody else
                if f"id={self._name}-".encode() in place.read_bytes():
                    os.killpg(int(place.parent.name), signal.SIGKILL)

    def _remove_directories(self) -> None:
        for directory in (*_MEMORY.glob(f"{self._name}-*"), *self._root.glob("build-*")):
            shutil.rmtree(directory, ignore_errors=True)

    async def remove_containers(self, engine: ContainerEngine, mark: str) -> None:
        """Remove the working containers of builds whose mark begins so; docker's service does that itself."""
        if engine.path.name == "docker":
            return
        code, lines = await engine.answer("info", "--format", "{{.Store.GraphRoot}}")
        if code != 0 or not lines:
            return
        for container in await asyncio.to_thread(lambda: list(_working_containers(Path(lines[-1]), mark))):
            await engine.answer("rm", "--force", container)


class PrivateFiles:
    """Files that only this user can read, in memory if the machine has such a place.

    Args:
        name: what the directory's name begins with.
    """

    def __init__(self, name: str) -> None:
        parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))

    def write(self, name: str, text: str) -> Path:
        """Write a file and return its path."""
        file = self.directory / name
        file.touch(mode=0o600)
        file.write_text(text)
        return file

    def close(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _working_containers(storage: Path, mark: str) -> Iterator[str]:
    """Yield the ids of the working containers in an engine's storage that carry a mark."""
    for description in storage.glob("*-containers/*/userdata/buildah.json"):
        with suppress(OSError):  # another build has just ended
            if f"id={mark}".encode() in description.read_bytes():
                yield description.parent.parent.name
