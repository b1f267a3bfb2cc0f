"""What a sandbox has of the machine, as a list: the engine writes it, and launch.py reads it.

The standard library alone, and none of it that costs time to import.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable

Place = tuple[str, str, str]
"""READ or WRITE, the path on the machine, and the path in the sandbox; or LINK, where it leads, and its path."""
SANDBOX_VARIABLE = "FAL_ROOM"
"""Lists what a sandbox holds, or says with NO_VIEW that a program sees the machine as it is. Unset, it gets a view.

This and the next name were published as they are: a shim that runs across an upgrade sets them for the new launch.py.
"""
SANDBOX_DIRECTORY_VARIABLE = "FAL_ROOM_DIRECTORY"
"""Names the directory that holds what one runner has alone, see PARTS; a build has none."""
VARIABLES_VARIABLE = "FAL_VARIABLES_FD"
"""Names the descriptor with a program's variables, each followed by a NUL; they are not those of launch.py."""
NO_VIEW = "none"
SHARED = "shared"
"""In place of a list: the sandbox of the process that a command joins."""
READ, WRITE, LINK = "r", "w", "l"
APP, CODE, TEMPORARY = "app", "code", "tmp"
PARTS = {APP: (WRITE, "/app"), CODE: (READ, "/fal"), TEMPORARY: (WRITE, "/tmp")}  # noqa: S108
"""The parts of a runner's directory that are in its sandbox: how, and where."""
DATA = "/data"
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix")
"""What every sandbox has of the top of the machine's file system, read-only."""
WORKER = 2
"""The process id of the worker in its sandbox."""


def has_sandbox(sandbox: str) -> bool:
    """Whether this asks for a sandbox, not for a view of the machine or for none."""
    return sandbox not in {"", NO_VIEW}


def isolation_of(sandbox: str, *, container: bool = False) -> str:
    """Name the level of isolation that a runner gets."""
    if container:
        return "container"
    return "process" if has_sandbox(sandbox) else NO_VIEW if sandbox else "view"


def seen_in_sandbox(path: str, directory: str) -> str:
    """Where a path in a runner's directory is in its sandbox; a path elsewhere stays as it is."""
    for name, (_, target) in PARTS.items():
        if f"{path}/".startswith(f"{directory}/{name}/"):
            return target + path[len(f"{directory}/{name}") :]
    return path


def written(places: Iterable[Place]) -> str:
    """Write a list of places.

    Raises:
        ValueError: a path cannot be written in a line.
    """
    lines: list[str] = []
    for mode, source, target in places:
        if any(character in path for path in (source, target) for character in "\t\n\0"):
            raise ValueError(f"the path {source!r} has a tab or the end of a line in it, and no sandbox can have it")
        lines.append(f"{mode}\t{source}\t{target}")
    return "\n".join(lines)


def read(text: str) -> list[Place]:
    """Read what `written` wrote."""
    places: list[Place] = []
    for line in text.splitlines():
        mode, source, target = line.split("\t")
        places.append((mode, source, target))
    return places
