"""Cursors: positions in a listing or stream, as opaque text for clients."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence

from fal_server.core.json_reader import read_json


def write_cursor(position: Sequence[object]) -> str:
    """Return a position, made of JSON values, as text."""
    text = json.dumps(position, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> list[object]:
    """Return a cursor's position, which may consist of any JSON values.

    Raises:
        ValueError: it is not a cursor.
    """
    padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
    position = read_json(b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(position, list):
        raise ValueError("it is not a list")
    return position
