"""Notices edits of an app's files.

It compares their `stat` results, which takes less than a millisecond for some tens of files. System notifications need
a package or a descriptor for each directory, and miss editors that replace single files.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from fal.deploy.load import NOT_SOURCES

_LOOK_SECONDS = 0.01
_MOST_FILES = 2000
_State: TypeAlias = "tuple[int, int, int] | None"


class Watcher:
    """Watches files, including some that may not exist yet."""

    def __init__(self) -> None:
        self._states: dict[Path, _State] = {}
        self._late: list[Path] = []
        self._complete_at = 0.0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are watched."""
        return tuple(self._states)

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these files instead of the earlier ones. Edits since the last look still count."""
        self._states = {path: self._states[path] if path in self._states else _state(path) for path in paths}

    def look(self) -> list[Path]:
        """Return the files that changed, appeared or disappeared since the last look."""
        changed = [path for path, state in self._states.items() if _state(path) != state]
        for path in changed:
            self._states[path] = _state(path)
        return changed

    async def changed(self) -> list[Path]:
        """Wait for an edit; return the files. An editor may still be writing some."""
        while True:
            found, self._late = [*self._late, *self.look()], []
            if found:
                self._complete_at = asyncio.get_running_loop().time() + _LOOK_SECONDS
                return found
            await asyncio.sleep(_LOOK_SECONDS)

    async def is_complete(self) -> bool:
        """Wait for the last edit to be complete. Return False if it continues; `changed` then reports it."""
        await asyncio.sleep(max(0.0, self._complete_at - asyncio.get_running_loop().time()))
        self._late += self.look()
        return not self._late


def sources_below(directory: Path) -> list[Path]:
    """Return at most 2,000 Python files below a directory. An app that cannot be loaded may import them."""
    found: list[Path] = []
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in NOT_SOURCES and not name.startswith(".")]
        found += [Path(parent, name) for name in files if name.endswith(".py")]
        if len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES]


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
