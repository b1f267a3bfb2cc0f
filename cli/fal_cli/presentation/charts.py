"""Draws a simulation in the terminal. It uses block characters or plain ASCII."""

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
_DAY = 86_400
_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 20, 30)),
    *(3600 * hours for hours in (1, 2, 6, 12)),
    *(_DAY * days for days in (1, 2, 5, 10, 20, 50)),
)
_UNITS = ((_DAY, "d"), (3600, "h"), (60, "min"), (1, "s"), (0, "s"))


def series(simulation: AppSimulation) -> list[tuple[str, list[int]]]:
    """Return the charts: (title, one value for every point)."""
    points = simulation.points
    return [
        ("Runners", [point.runners for point in points]),
        ("Requests in flight", [point.in_flight for point in points]),
        ("Requests waiting", [point.queued for point in points]),
    ]


def render(simulation: AppSimulation, *, width: int, blocks: bool) -> str:
    """Return the charts, one below the other.

    Args:
        width: characters in a line.
        blocks: whether the terminal can show block characters; otherwise `#`.
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
    if blocks:
        return _BLOCKS[max(0, min(8, math.ceil(filled * 8)))]
    return "#" if filled > 0 else " "


def _stretched(values: Sequence[int], width: int) -> list[int]:
    """Return one value for every column. It is the greatest of the values that share it."""
    count = len(values)
    edges = [column * count // width for column in range(width + 1)]
    return [max(values[begin : max(end, begin + 1)]) for begin, end in pairwise(edges)]


def _axis(end: float, width: int) -> str:
    """Return the axis. It has a mark under each labeled time, and its label if there is room."""
    marks, labels = [" "] * width, [" "] * (width + _LABEL)
    free = 0
    for at, name in ticks(end, max(2, width // 10)):
        column = min(width - 1, round(at / end * (width - 1))) if end else 0
        begin = min(column, width - len(name))
        if begin >= free:
            marks[column] = "|"
            labels[begin : begin + len(name)] = name
            free = begin + len(name) + 1
    left = " " * (_LABEL + 2)
    return f"{left}{''.join(marks).rstrip()}\n{left}{''.join(labels).rstrip()}"


def ticks(end: float, most: int) -> list[tuple[float, str]]:
    """Return round times from 0 to the end. They are in the greatest unit that fits their distance.

    Args:
        end: the last time, in seconds.
        most: the most times beyond 0.

    Returns:
        For each, the seconds and a label such as "20 s", "5 min", "2 h".
    """
    if end <= 0:
        return [(0.0, "0 s")]
    step = next((step for step in _STEPS if end / step <= most), None)
    if step is None:
        step = _DAY * 10 ** math.ceil(math.log10(end / _DAY / most))
    size, unit = next((size, unit) for size, unit in _UNITS if step >= size)
    return [
        (number * step, f"{number * step / (size or 1):.6g} {unit}") for number in range(int(end / step + 1e-9) + 1)
    ]
