"""Checks and splits callers' paths below /data."""

from __future__ import annotations

from fal_server.core.faults import InvalidArgument

ROOT = "data"
DRAFTS = ".fal-drafts"
_MOST_BYTES = 4096
_MOST_NAME_BYTES = 255


def data_parts(path: str) -> tuple[str, ...]:
    """Return the names between /data and a path. There are none for /data itself.

    Args:
        path: such as `/data/a/b`; the first slash is optional, and empty names and `.` are ignored.

    Raises:
        InvalidArgument: it is not below /data, or contains a name that no file can have.
    """
    shown = path[:200]
    if "\0" in path or len(path.encode(errors="surrogateescape")) > _MOST_BYTES:
        raise InvalidArgument(
            "path", f"path {shown!r} cannot be a path: it has a zero byte or more than {_MOST_BYTES} bytes"
        )
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise InvalidArgument("path", f"path {shown!r} has `..` in it: write the path without")
    if parts[:1] != (ROOT,):
        raise InvalidArgument("path", f"path {shown!r} is not below /data: files are kept there")
    if any(len(part.encode(errors="surrogateescape")) > _MOST_NAME_BYTES for part in parts):
        raise InvalidArgument("path", f"path {shown!r} has a name of more than {_MOST_NAME_BYTES} bytes")
    if parts[1:2] == (DRAFTS,):
        raise InvalidArgument("path", f"path {shown!r} is reserved for the controller: choose another")
    return parts[1:]


def data_path(*parts: str) -> str:
    """Return the path in callers' form."""
    return "/" + "/".join((ROOT, *parts))
