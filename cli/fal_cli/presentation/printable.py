"""Makes foreign text safe to print. It cannot move the cursor, retitle the window or reorder the line."""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1, and the characters that change the direction of text or break lines.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SGR = re.compile("\x1b\\[[0-9;:]*m")
_RESET = "\x1b[0m"


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return "^" + chr(code + 0x40)
    if code == 0x7F:
        return "^?"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def visible(text: str) -> str:
    r"""Return `text` with its control characters escaped, as `^[` or `\u202e`. Tab and newline stay."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(_visible, text)


def one_line(text: str) -> str:
    """Return `text` with every control character escaped, including tab and newline."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(_visible, text).replace("\n", "\\n").replace("\t", "\\t")


def log_text(text: str, *, color: bool) -> str:
    """Return a log message that is safe on a terminal.

    Args:
        text: the message.
        color: whether to keep its own colors (SGR sequences), which then end with the message.
    """
    text = text.rstrip("\r")
    if text.isascii() and text.isprintable():
        return text
    if not color:
        return visible(_SGR.sub("", text))
    pieces: list[str] = []
    end = 0
    for match in _SGR.finditer(text):
        pieces += (visible(text[end : match.start()]), match.group())
        end = match.end()
    pieces.append(visible(text[end:]))
    return "".join(pieces) + (_RESET if end else "")
