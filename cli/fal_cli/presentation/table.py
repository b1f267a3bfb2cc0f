"""Lays rows out in columns: aligned by what a terminal shows of them, folded where the terminal is narrow and
the column allows it, and never cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fal_cli.presentation.printable import one_line
from fal_cli.presentation.style import paint

_GAP = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        title: what its head says.
        folds: whether its words may go on several lines where the terminal is narrow; ids do not, so that they can be
            copied.
        right: whether it is aligned to the right, as counts are.
    """

    title: str
    folds: bool = False
    right: bool = False


def display_width(text: str) -> int:
    """Return how many terminal cells `text` takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(char) in {"Mn", "Me", "Cf"} else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def render(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, width: int | None = None, colour: bool = False
) -> str:
    """Return the table, each line ended by a newline.

    Args:
        columns: the columns.
        rows: a text for each column; control characters in it are spelt out.
        width: cells in a line of the terminal; None never folds, as is right for a pipe.
        colour: whether the head is bold.
    """
    titles = [column.title for column in columns]
    cells = [[one_line(text) for text in row] for row in rows]
    by_column = list(zip(*cells, strict=True)) if cells else [() for _ in columns]
    widths = [max(map(display_width, (title, *texts))) for title, texts in zip(titles, by_column, strict=True)]
    if width is not None and _total(widths) > width:
        narrowed = _narrowed(columns, by_column, widths, width)
        # Where even that is too wide, whole lines that the terminal wraps are easier to read than folded ones.
        if _total(narrowed) <= width:
            return _folded(columns, [titles, *cells], narrowed, colour=colour)
    lines = [paint(_line(columns, titles, widths), "bold", colour=colour)]
    lines += [_line(columns, row, widths) for row in cells]
    return "\n".join(lines) + "\n"


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _line(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> str:
    cells: list[str] = []
    for column, text, width in zip(columns, texts, widths, strict=True):
        padding = " " * (width - (len(text) if text.isascii() else display_width(text)))
        cells.append(padding + text if column.right else text + padding)
    return _GAP.join(cells).rstrip()


def _narrowed(
    columns: Sequence[Column], by_column: Sequence[Sequence[str]], widths: list[int], width: int
) -> list[int]:
    """Take cells from the widest columns that fold, down to their longest word, until the line fits or none is left."""
    least: list[int] = []
    for column, texts, natural in zip(columns, by_column, widths, strict=True):
        head = max(map(display_width, column.title.split(" ")))
        if column.folds:
            least.append(max([head, *(display_width(word) for text in texts for word in text.split(" "))]))
        else:
            least.append(min(natural, max([head, *map(display_width, texts)])))
    narrowed = list(widths)
    while _total(narrowed) > width:
        spare = [now - low for now, low in zip(narrowed, least, strict=True)]
        if not any(spare):
            break
        narrowed[max((i for i, room in enumerate(spare) if room), key=narrowed.__getitem__)] -= 1
    return narrowed


def _fold(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        if lines and display_width(lines[-1]) + 1 + display_width(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _folded(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int], *, colour: bool) -> str:
    lines: list[str] = []
    for number, row in enumerate(rows):
        folded = [_fold(text, width) for text, width in zip(row, widths, strict=True)]
        for index in range(max(map(len, folded))):
            line = _line(columns, [cell[index] if index < len(cell) else "" for cell in folded], widths)
            lines.append(paint(line, "bold", colour=colour and number == 0))
    return "\n".join(lines) + "\n"
