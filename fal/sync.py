"""Mirrors a local directory to /data."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fal.container import pattern_to_regex

if TYPE_CHECKING:
    from fal.files import Files

_MARK = ".fal_hash"


def sync_dir(local_dir: str | Path, remote_dir: str, force_upload: bool = False) -> str:
    """Upload a directory, unless its current content is already uploaded.

    Files that its `.gitignore` matches are left out.

    Args:
        local_dir: the local directory.
        remote_dir: the destination, which begins with /data/.
        force_upload: upload it even if it was uploaded already.

    Returns:
        The destination.

    Raises:
        ValueError: the destination is not in /data.
        ConfigError: the local directory does not exist.
        CallError: the controller refused, or cannot be reached.
    """
    from fal.api import SyncServerlessClient
    from fal.files import Files
    from fal_grpc.errors import ConfigError

    place = "/" + "/".join(part for part in remote_dir.split("/") if part)
    if not remote_dir.startswith("/") or not place.startswith("/data/") or ".." in place.split("/"):
        raise ValueError(f"remote_dir is {remote_dir!r}: give a path below /data, such as /data/models")
    directory = Path(local_dir).expanduser()
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}")
    chosen = _chosen(directory)
    digest = _digest(directory, chosen)
    with SyncServerlessClient() as client:
        files = Files(client.rest())
        if force_upload or _marked(files, place) != digest:
            for path in chosen:
                files.upload(path, f"{place}/{path.relative_to(directory).as_posix()}")
            with tempfile.TemporaryDirectory(prefix="fal-sync-") as temporary:
                mark = Path(temporary, _MARK)
                mark.write_text(digest)
                files.upload(mark, f"{place}/{_MARK}")  # written last, so that an interrupted upload is repeated
    return place


def _chosen(directory: Path) -> list[Path]:
    ignore = directory / ".gitignore"
    lines = ignore.read_text().splitlines() if ignore.is_file() else []
    patterns = [re.compile(pattern_to_regex(line.strip())) for line in lines if line.strip() and line.strip()[0] != "#"]
    found = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != _MARK)
    return [
        path for path in found if not any(pattern.match(path.relative_to(directory).as_posix()) for pattern in patterns)
    ]


def _digest(directory: Path, files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(directory).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def _marked(files: Files, place: str) -> str | None:
    """Return the digest of the uploaded content; None if there is none."""
    from fal_grpc.errors import NotFoundError

    with tempfile.TemporaryDirectory(prefix="fal-sync-") as directory:
        try:
            (mark,) = files.download(f"{place}/{_MARK}", Path(directory, _MARK))
        except NotFoundError:
            return None
        return mark.read_text()
