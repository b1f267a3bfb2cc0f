"""Directories of the machine that the operator shares with every runner. One may hold model weights, for example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fal_runner.isolation.sandbox import PARTS, SYSTEM
from fal_server.core.faults import Unavailable

_WRITABLE = ":rw"
# Names at which a sandbox has its own or a restricted directory.
_TAKEN = frozenset({"data", "dev", "etc", "proc", "sys", *(target.strip("/") for _, target in PARTS.values())})


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    """A directory that runners see at its path on the machine."""

    path: Path
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.path} ({'read and write' if self.writable else 'read-only'})"


def shared_directory(text: str) -> SharedDirectory:
    """Parse `PATH`, `PATH:ro` or `PATH:rw`."""
    for suffix, writable in ((_WRITABLE, True), (":ro", False)):
        if text.endswith(suffix):
            return SharedDirectory(Path(text.removesuffix(suffix)), writable)
    return SharedDirectory(Path(text))


def check_shared(shared: Sequence[SharedDirectory], state: Path, content: Path, calls: Path) -> None:
    """Reject directories that no runner may see or a sandbox cannot contain.

    Args:
        state: the state directory.
        content: where code and files of all accounts are.
        calls: the directory of the socket on which runners call the controller.

    Raises:
        Unavailable: a directory is rejected; the message names it, and says what to do.
    """
    for each in shared:
        path, why = each.path, ""
        real = path.resolve()
        top = path.parts[1] if len(path.parts) > 1 else ""
        if not real.is_dir():
            why = "is not a directory: create it, or leave the option out"
        elif _overlap(real, state):
            why = f"would show the state directory {state} with its keys to every app: share a directory beside it"
        elif _overlap(real, content):
            why = f"would show {content} with the code and files of all accounts to every app: share one beside it"
        elif _overlap(real, calls):
            why = f"would show {calls} with the controller's socket to every app: share a directory beside it"
        elif top in SYSTEM:
            why = "is in every sandbox already, read-only: leave the option out"
        elif top in _TAKEN:
            why = f"is below /{top}, which each sandbox has of its own: use another path, as by a link"
        if why:
            raise Unavailable(f"--share-directory {path} {why}")


def _overlap(shared: Path, kept: Path) -> bool:
    """Return whether one of two directories is in the other."""
    kept = kept.resolve()
    return kept.is_relative_to(shared) or shared.is_relative_to(kept)
