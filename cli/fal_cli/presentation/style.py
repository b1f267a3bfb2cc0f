"""Colors text if the stream is a terminal. NO_COLOR turns that off, FORCE_COLOR on."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "reverse": "7",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


def wants_color(stream: TextIO) -> bool:
    """Return whether to color text for `stream`.

    NO_COLOR overrides FORCE_COLOR, which overrides TERM=dumb and a pipe.
    Source: no-color.org and force-color.org; empty counts as unset.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return os.environ["FORCE_COLOR"] != "0"
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, *styles: str, color: bool) -> str:
    """Return `text` in these styles (bold, dim, or a color). It is unchanged if `color` is false."""
    if not color or not text:
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"
