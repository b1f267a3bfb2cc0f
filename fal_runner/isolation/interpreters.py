"""Lists what an interpreter needs in a sandbox. This is its installation and the links to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from fal_runner.isolation.sandbox import LINK, READ, SYSTEM, WRITE, Place
from fal_runner.process.foreign_files import read_regular

_MOST_LINKS = 40  # the kernel follows as many
LONGEST_SETTINGS = 65_536
"""More of an environment's pyvenv.cfg is not read."""


def place(mode: str, path: Path, target: str | None = None) -> Place:
    """Return an entry of a sandbox. By default the path in it is the same."""
    return mode, str(path.resolve()), target or str(path)


def needed(places: Iterable[Place]) -> Iterator[Place]:
    """Drop entries that every sandbox has, that are missing, or that repeat."""
    known: set[str] = set()
    for each in places:
        mode, source, target = each
        inside = mode != WRITE and any(Path(target).is_relative_to(f"/{name}") for name in SYSTEM)
        if target not in known and not inside and (mode == LINK or Path(source).exists()):
            known.add(target)
            yield each


def of_interpreter(python: Path) -> Iterator[Place]:
    """Yield an interpreter's environment, its base installation, and the links between.

    The environment's own files name these paths, so whoever may write to an environment chooses what this yields.
    """
    prefix = python.parent.parent
    base = _base(prefix)
    if base is not None:
        yield place(READ, prefix)
    for path in (python, *([base / python.name, base / "python3"] if base is not None else [])):
        real, links = _resolved(path)
        yield from links
        if real.is_file():
            yield from map(partial(place, READ), _installation(real))


def _installation(real: Path) -> list[Path]:
    """Return the directories of an interpreter's installation. None of them is a home directory or /."""
    prefix = real.parent.parent
    if not Path.home().is_relative_to(prefix):
        return [prefix]
    return [prefix / name for name in ("bin", "lib", "lib64", "include")] if prefix != Path("/") else []


def _resolved(path: Path) -> tuple[Path, list[Place]]:
    """Resolve a path; return it and the links on the way."""
    links: list[Place] = []
    waiting, here = list(reversed(path.parts[1:])), Path("/")
    while waiting and len(links) < _MOST_LINKS:
        name = waiting.pop()
        if name == "..":
            here = here.parent
            continue
        here /= name
        if here.is_symlink():
            link = here.readlink()
            links.append((LINK, str(link), str(here)))
            parts = link.parts[1:] if link.is_absolute() else link.parts
            here = Path("/") if link.is_absolute() else here.parent
            waiting += reversed(parts)
    return here, links


def _base(prefix: Path) -> Path | None:
    """Return a virtual environment's base interpreter directory. None for any other directory."""
    try:
        lines = read_regular(prefix / "pyvenv.cfg", LONGEST_SETTINGS).decode(errors="replace").splitlines()
    except OSError:
        return None
    found = (line.partition("=") for line in lines)
    return next((Path(value.strip()) for name, _, value in found if name.strip() == "home"), None)
