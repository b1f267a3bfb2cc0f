"""Finds the files of an app, and hashes them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fal.deploy.errors import AppFileError

MAX_BYTES = 1024**3
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFile:
    """A file to send with an app.

    Attributes:
        path: its local path.
        relative_path: its path in the runner, below the app's directory, with "/" as separator.
        hash: SHA-256, in hexadecimal, of the content followed by the decimal digits of the mode.
        size: bytes.
        mtime: seconds since 1970.
        mode: type and permissions, as returned by stat.
    """

    path: Path
    relative_path: str
    hash: str
    size: int
    mtime: float
    mode: int


def context_dir(app_path: Path | None, given: str | None) -> Path:
    """Return the directory that an app's files are relative to. By default it is the app's own.

    Args:
        app_path: the app's file; None means the current directory.
        given: a path relative to the app's directory.
    """
    base = Path.cwd() if app_path is None else app_path.resolve().parent
    return (base / given).resolve() if given else base


def app_dir_in(app_path: Path | None, context: Path) -> str:
    """Return the app file's directory relative to `context`. The app runs there."""
    base = Path.cwd() if app_path is None else app_path.resolve().parent
    return Path(os.path.relpath(base, context)).as_posix()


def relative_to(path: Path, directory: Path) -> str | None:
    """Return the path relative to the directory; None if outside of it."""
    return path.relative_to(directory).as_posix() if path.is_relative_to(directory) else None


def collect_files(
    names: Sequence[str], context: Path, *, ignore: Sequence[str] = (), leave_out: Path | None = None
) -> list[AppFile]:
    """Return the named files, and all files in the named directories. They are sorted by their path in the runner.

    Args:
        names: files and directories, relative to `context`.
        context: the directory that the paths in the runner are relative to.
        ignore: regular expressions; a file whose relative path matches one is left out.
        leave_out: the app's own file, which travels separately.

    Raises:
        AppFileError: a file does not exist, is outside of `context` or is too large, or a pattern is malformed.
    """
    try:
        patterns = [re.compile(pattern) for pattern in ignore]
    except re.error as error:
        raise AppFileError(
            f"app_files_ignore has {error.pattern!r}, which is not a regular expression: {error}"
        ) from error
    found: dict[str, AppFile] = {}
    for name in names:
        for path in _files_of(name, context):
            relative = relative_to(path.resolve(), context)
            if relative is None:
                raise AppFileError(
                    f"{path} is outside of {context}, where the app's files must be: set app_files_context_dir, "
                    "or leave it out by app_files_ignore"
                )
            ignored = any(pattern.search(relative) for pattern in patterns)
            if not ignored and (leave_out is None or path.resolve() != leave_out.resolve()):
                found[relative] = _identified(path, relative)
    return [found[relative] for relative in sorted(found)]


def _files_of(name: str, context: Path) -> Iterator[Path]:
    path = context / name
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise AppFileError(f"app_files has {name!r}, but there is no {path}")
    for directory, _, files in os.walk(path):
        for file in files:
            inner = Path(directory) / file
            if inner.is_file():  # neither a socket nor a broken link
                yield inner


def _identified(path: Path, relative: str) -> AppFile:
    status = path.stat()
    if status.st_size > MAX_BYTES:
        raise AppFileError(f"{path} has {status.st_size} bytes; a file of an app has at most {MAX_BYTES}")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    digest.update(str(status.st_mode).encode())
    return AppFile(
        path=path,
        relative_path=relative,
        hash=digest.hexdigest(),
        size=status.st_size,
        mtime=status.st_mtime,
        mode=status.st_mode,
    )
