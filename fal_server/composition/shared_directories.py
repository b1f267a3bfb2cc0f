"""Directories of the machine that the owner shows to every runner, such as one with model weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fal_runner.isolation.room import PARTS, SYSTEM
from fal_server.core.faults import Unavailable

_WRITABLE = ":rw"
# What a room has of its own, or a list of, at these names.
_TAKEN = frozenset({"data", "dev", "etc", "proc", "sys", *(target.strip("/") for _, target in PARTS.values())})


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    """A directory that runners see at the path that it has on the machine."""

    path: Path
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.path} ({'read and write' if self.writable else 'read-only'})"


def shared_directory(text: str) -> SharedDirectory:
    """Read `PATH`, `PATH:ro` or `PATH:rw`."""
    for suffix, writable in ((_WRITABLE, True), (":ro", False)):
        if text.endswith(suffix):
            return SharedDirectory(Path(text.removesuffix(suffix)), writable)
    return SharedDirectory(Path(text))


def check_shared(shared: Sequence[SharedDirectory], state: Path) -> None:
    """Refuse what no runner may see, and what a room cannot have.

    Args:
        state: the state directory.

    Raises:
        Unavailable: naming the directory, and what to do.
    """
    for each in shared:
        path, why = each.path, ""
        real, kept = path.resolve(), state.resolve()
        top = path.parts[1] if len(path.parts) > 1 else ""
        if not real.is_dir():
            why = "is no directory: make it, or leave the option out"
        elif kept.is_relative_to(real) or real.is_relative_to(kept):
            why = f"would show the state directory {state} with its keys to every app: share a directory beside it"
        elif top in SYSTEM:
            why = "is in every room already, read-only: leave the option out"
        elif top in _TAKEN:
            why = f"is below /{top}, which each room has of its own: use another path, as by a link"
        if why:
            raise Unavailable(f"--share-directory {path} {why}")
