"""Breaks text into lines that fit a terminal. A break is within a word only if the word is longer than a line."""

from __future__ import annotations

_REMARK = 14
# Requests the emoji form of the preceding character, which is two cells wide.
_AS_PICTURE = "\ufe0f"
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff")


def display_width(text: str) -> int:
    """Return the most terminal cells that `text` takes. A wide character takes two, a combining one none."""
    if text.isascii():
        return len(text)
    width = last = 0
    for char in text:
        last = 2 - last if char == _AS_PICTURE and last == 1 else _cells(char)
        width += last
    return width


def _cells(char: str) -> int:
    from unicodedata import category, east_asian_width

    if char in _INVISIBLE or category(char) in {"Mn", "Me"}:
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits `width` cells. A shortened text ends with an ellipsis."""
    if display_width(text) <= width:
        return text
    kept = ""
    for char in text:
        if display_width(kept + char) > width - 1:
            break
        kept += char
    return f"{kept}…" if width > 0 else ""


def fold_lines(text: str, width: int) -> str:
    """Break the lines of `text` between words. They fit `width` cells if each word does."""
    return "\n".join("\n".join(fold(line, width)) for line in text.split("\n"))


def split_words(text: str) -> list[str]:
    """Split a text at possible line breaks. A short remark in parentheses, such as `(2 min ago)`, stays together."""
    words: list[str] = []
    for word in text.split(" "):
        if words and words[-1].startswith("(") and not words[-1].endswith(")") and len(words[-1] + word) < _REMARK:
            words[-1] += " " + word
        else:
            words.append(word)
    return words


def fold(text: str, width: int, *, cut: bool = False) -> list[str]:
    """Break a text between words into lines. Continuation lines keep the indentation, unless `cut` is set.

    Args:
        text: one line.
        width: the cells of a line.
        cut: whether to cut a word that is longer than a line. If not, the terminal breaks it, and a person can copy it.
    """
    if text[:1] != " " and display_width(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip(" "))]
    rest = text[len(indent) :]
    if cut:
        indent = ""
    lines: list[str] = []
    for word in split_words(rest):
        pieces = _cut(word, width) if cut and display_width(word) > width else [word]
        if lines and display_width(lines[-1]) + 1 + display_width(pieces[0]) <= width:
            lines[-1] += " " + pieces.pop(0)
        elif lines and not word:
            continue  # a space at the end of a line
        lines += [indent + piece for piece in pieces]
    return lines


def _cut(word: str, width: int) -> list[str]:
    """Cut a word into pieces of at most `width` cells. Combining characters stay with theirs."""
    pieces = [""]
    for char in word:
        grown = pieces[-1] + char
        if pieces[-1] and display_width(grown) > width:
            pieces.append(char)
        else:
            pieces[-1] = grown
    return pieces
