"""The list of a sandbox's entries. The engine writes it, and launch.py reads it.

This imports nothing, because an import would cost a start more than all of this.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable

Place = tuple[str, str, str]
"""READ, WRITE or DEVICE, the path on the machine, and the path in the sandbox; or LINK, its target, and its path."""
SANDBOX_VARIABLE = "FAL_ROOM"
"""Lists what a sandbox holds, or says with NO_VIEW that a program sees the machine as it is. Unset, it gets a view.

This and the next name were published as they are: a shim that runs across an upgrade sets them for the new launch.py.
"""
SANDBOX_DIRECTORY_VARIABLE = "FAL_ROOM_DIRECTORY"
"""Names the directory with a runner's own parts, see PARTS; a build has none."""
VARIABLES_VARIABLE = "FAL_VARIABLES_FD"
"""Names the descriptor with the program's variables, each followed by a NUL, apart from those of launch.py."""
PROCESSES_VARIABLE = "FAL_PROCESSES"
"""The number of processes and threads that a sandbox may have, if it is not the usual one."""
NO_VIEW = "none"
SHARED = "shared"
"""In place of a list: a command joins the sandbox of a process."""
READ, WRITE, LINK, DEVICE = "r", "w", "l", "d"
DEVICES = "/dev/"
"""The directory of device files, on the machine and in a sandbox."""
APP, CODE, TEMPORARY = "app", "code", "tmp"
PARTS = {APP: (WRITE, "/app"), CODE: (READ, "/fal"), TEMPORARY: (WRITE, "/tmp")}  # noqa: S108
"""The parts of a runner's directory in its sandbox: access and path."""
DATA = "/data"
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix")
"""Directories of the machine's root that every sandbox has, read-only."""
WORKER = 2
"""The process id of the worker in its sandbox."""


def has_sandbox(sandbox: str) -> bool:
    """Return whether this asks for a sandbox. A view, or no isolation, is not a sandbox."""
    return sandbox not in {"", NO_VIEW}


def isolation_of(sandbox: str, *, container: bool = False) -> str:
    """Name the level of isolation that a runner gets."""
    if container:
        return "container"
    return "process" if has_sandbox(sandbox) else NO_VIEW if sandbox else "view"


def seen_in_sandbox(path: str, directory: str) -> str:
    """Return the sandbox's path for a path in the runner's directory. Other paths stay as they are."""
    for name, (_, target) in PARTS.items():
        if f"{path}/".startswith(f"{directory}/{name}/"):
            return target + path[len(f"{directory}/{name}") :]
    return path


def written(places: Iterable[Place]) -> str:
    """Serialize a list of entries.

    Raises:
        ValueError: a path cannot be written in a line.
    """
    lines: list[str] = []
    for mode, source, target in places:
        if any(character in path for path in (source, target) for character in "\t\n\0"):
            raise ValueError(f"the path {source!r} contains a tab or a line break, and no sandbox can have it")
        lines.append(f"{mode}\t{source}\t{target}")
    return "\n".join(lines)


def read(text: str) -> list[Place]:
    """Parse what `written` returns."""
    places: list[Place] = []
    for line in text.splitlines():
        mode, source, target = line.split("\t")
        places.append((mode, source, target))
    return places
