"""Lays out rows as a table. They are blocks of lines if the terminal is too narrow for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from fal_cli.ids import short_ids
from fal_cli.presentation.folding import display_width, fold, split_words
from fal_cli.presentation.printable import one_line
from fal_cli.presentation.style import paint

_GAP = "  "
_INDENT = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        title: the heading.
        folds: whether its words may wrap to several lines; ids do not, so that they can be copied.
        right: whether to align it to the right, as for counts.
        shortens: whether to shorten its ids to unique prefixes if the table does not fit; commands accept those.
    """

    title: str
    folds: bool = False
    right: bool = False
    shortens: bool = False


def render(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, width: int | None = None, color: bool = False
) -> str:
    """Return the table. If it does not fit, it is a block for each row; each line ends with a newline.

    A table that is too wide is narrowed in this order: words wrap, ids become prefixes, rows become blocks.

    Args:
        columns: the columns.
        rows: one text for each column; control characters are escaped.
        width: the terminal's width in cells; None for a pipe, which gets one line for each row.
        color: whether headings are bold.
    """
    titles = [column.title for column in columns]
    cells = [[one_line(text).strip(" ") for text in row] for row in rows]
    by_column = list(zip(*cells, strict=True)) if cells else [() for _ in columns]
    widths = [_widest({title, *texts}) for title, texts in zip(titles, by_column, strict=True)]
    if width is not None and _total(widths) > width:
        for texts in (by_column, _shortened(columns, by_column)):
            narrowed = _narrowed(columns, texts, widths, width)
            if _total(narrowed) <= width:
                rows = zip(*texts, strict=True) if cells else ()
                return _folded(columns, [titles, *rows], narrowed, color=color)
        return _blocks(titles, cells, width, color=color)
    lines = [paint(_line(columns, titles, widths), "bold", color=color)]
    lines += [_line(columns, row, widths) for row in cells]
    return "\n".join(lines) + "\n"


def _widest(texts: Iterable[str]) -> int:
    return max(map(display_width, texts))


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
    """Narrow the widest folding columns until the line fits. None becomes narrower than its longest word."""
    least: list[int] = []
    for column, texts, natural in zip(columns, by_column, widths, strict=True):
        heads = column.title.split(" ")
        if column.folds:
            least.append(_widest({*heads, *chain.from_iterable(map(split_words, set(texts)))}))
        else:
            least.append(min(natural, _widest({*heads, *texts})))
    narrowed = list(widths)
    while _total(narrowed) > width:
        spare = [now - low for now, low in zip(narrowed, least, strict=True)]
        if not any(spare):
            break
        narrowed[max((i for i, room in enumerate(spare) if room), key=narrowed.__getitem__)] -= 1
    return narrowed


def _shortened(columns: Sequence[Column], by_column: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [short_ids(texts) if column.shortens else texts for column, texts in zip(columns, by_column, strict=True)]


def _folded(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int], *, color: bool) -> str:
    lines: list[str] = []
    cached = cache(fold)  # most columns have few texts in many rows
    for number, row in enumerate(rows):
        folded = [cached(text, width, cut=True) for text, width in zip(row, widths, strict=True)]
        for index in range(max(map(len, folded))):
            line = _line(columns, [cell[index] if index < len(cell) else "" for cell in folded], widths)
            lines.append(paint(line, "bold", color=color and number == 0))
    return "\n".join(lines) + "\n"


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, color: bool) -> str:
    """Return a block of `Title: text` lines for each row. Empty lines separate blocks, and empty texts are left out.

    A text with a word that does not fit beside the title begins on the next line.
    """
    label_width = max(map(display_width, titles)) + 2
    blocks: list[str] = []
    for row in rows:
        lines: list[str] = []
        for title, text in zip(titles, row, strict=True):
            if not text:
                continue
            label = paint(f"{title}:", "bold", color=color)
            room = width - label_width
            if max(map(display_width, split_words(text))) > room:
                below = fold(text, max(1, width - len(_INDENT)), cut=True)
                lines += [label, *((_INDENT + line).rstrip() for line in below)]
                continue
            first, *more = fold(text, room)
            lines.append((label + " " * (label_width - display_width(title) - 1) + first).rstrip())
            lines += [(" " * label_width + line).rstrip() for line in more]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
