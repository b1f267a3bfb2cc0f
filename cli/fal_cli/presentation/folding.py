"""Breaks text into lines that fit a terminal, between words only."""

from __future__ import annotations

_REMARK = 14


def display_width(text: str) -> int:
    """Return the terminal cells of `text`: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(char) in {"Mn", "Me", "Cf"} else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits `width` cells; a text that is cut ends with an ellipsis."""
    if display_width(text) <= width:
        return text
    kept = ""
    for char in text:
        if display_width(kept + char) > width - 1:
            break
        kept += char
    return f"{kept}…" if width > 0 else ""


def fold_lines(text: str, width: int) -> str:
    """Return `text` with its lines broken between words, so that they fit `width` cells if each word does."""
    return "\n".join("\n".join(fold(line, width)) for line in text.split("\n"))


def split_words(text: str) -> list[str]:
    """Split a text where a line may be broken; a short remark in parentheses, such as `(2 min ago)`, stays together."""
    words: list[str] = []
    for word in text.split(" "):
        if words and words[-1].startswith("(") and not words[-1].endswith(")") and len(words[-1] + word) < _REMARK:
            words[-1] += " " + word
        else:
            words.append(word)
    return words


def fold(text: str, width: int) -> list[str]:
    """Return the lines of a text that is broken between words; what is broken off keeps the indentation."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines: list[str] = []
    for word in split_words(text[len(indent) :]):
        if lines and display_width(lines[-1]) + 1 + display_width(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(indent + word)
    return lines
