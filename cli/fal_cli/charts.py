"""Draws a simulation in the terminal: block charts as wide as it is, or plain ASCII where no blocks can be shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.api import AppSimulation

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HEIGHT = 6
_LABEL = 7


def series(simulation: AppSimulation) -> list[tuple[str, list[int]]]:
    """What is drawn: (title, values), one of each for every point."""
    points = simulation.points
    return [
        ("Runners", [point.runners for point in points]),
        ("Requests in flight", [point.in_flight for point in points]),
        ("Requests waiting", [point.queued for point in points]),
    ]


def render(simulation: AppSimulation, *, width: int, blocks: bool) -> str:
    """The charts, one below the other.

    Args:
        width: of a line, in characters.
        blocks: whether the terminal can show block characters; else `#`.
    """
    end = simulation.points[-1].at_seconds
    room = max(10, width - _LABEL - 2)
    parts = [
        "\n".join([title, *_chart(_stretched(values, room), blocks=blocks)]) for title, values in series(simulation)
    ]
    return "\n".join([*parts, _axis(end, room)]) + "\n"


def _chart(values: Sequence[int], *, blocks: bool) -> Iterator[str]:
    most = max(*values, 1)
    bar, corner = ("│", "┤") if blocks else ("|", "+")
    for row in range(_HEIGHT - 1, -1, -1):
        label = str(most) if row == _HEIGHT - 1 else "0" if row == 0 else ""
        cells = "".join(_cell(value / most * _HEIGHT - row, blocks=blocks) for value in values)
        yield f"{label:>{_LABEL}} {corner if label else bar}{cells}".rstrip()


def _cell(filled: float, *, blocks: bool) -> str:
    """One character: how much of its height is filled."""
    if blocks:
        return _BLOCKS[max(0, min(8, math.ceil(filled * 8)))]
    return "#" if filled > 0 else " "


def _stretched(values: Sequence[int], width: int) -> list[int]:
    """As many values as there are columns; of several in one column the greatest."""
    count = len(values)
    edges = [column * count // width for column in range(width + 1)]
    return [max(values[begin : max(end, begin + 1)]) for begin, end in pairwise(edges)]


def _axis(end: float, width: int) -> str:
    last = f"{end:.6g} s"
    return " " * (_LABEL + 2) + "0" + last.rjust(width - 1)
