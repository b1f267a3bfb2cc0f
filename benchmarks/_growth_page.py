"""The table and the plot of `benchmarks.growth`, and their page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

_PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/performance/growth.md"
_PLOT = "images/growth.svg"
_BEGIN, _END = "<!-- figures: make bench-growth writes them -->", "<!-- end of the figures -->"
GROUPS = {
    "apps": ("apps listed", "first plan", "plan at rest"),
    "runners": (
        "runners listed",
        "runners watched",
        "ended runners listed at once",
        "ended runners listed in pages",
        "a request's runner, of one app's",
    ),
    "waiting requests": ("waiting requests loaded at a start", "one more request accepted", "waiting requests flushed"),
    "followers": ("a line, to each follower",),
    "log lines": ("lines stored", "lines sealed", "the newest ten lines", "lines searched"),
}
_COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")
_WIDTH, _HEIGHT, _LEFT, _TOP = 250, 170, 60, 30
_LEGEND = 16


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How long an operation took. Has the longest time for which it blocked the event loop, too."""

    seconds: float
    held_milliseconds: float


Found: TypeAlias = "Mapping[int, Mapping[str, Measured]]"


def growth(found: Found, name: str) -> float:
    """Return the exponent of the growth between the two largest counts. The exponent 0 is none, and 1 is linear."""
    small, large = [count for count in found if name in found[count]][-2:]
    return math.log(found[large][name].seconds / found[small][name].seconds) / math.log(large / small)


def table(found: Found) -> str:
    """Return the times as a table of Markdown."""
    lines = [
        "| of | what | " + " | ".join(f"{count:,}" for count in found) + " | growth | longest hold |",
        "| --- | --- | " + "--- | " * (len(found) + 2),
    ]
    for group, names in GROUPS.items():
        for name in names:
            ones = [found[count].get(name) for count in found]
            cells = ["" if one is None else _time(one.seconds) for one in ones]
            held = max(one.held_milliseconds for one in ones if one is not None)
            lines.append(f"| {group} | {name} | {' | '.join(cells)} | {growth(found, name):.1f} | {held:.1f} ms |")
            group = ""
    return "\n".join(line.rstrip() for line in lines)


def _time(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def plot(found: Found) -> str:
    """Return a chart for each group, with logarithmic axes, as SVG."""
    charts = [_chart(found, names, group, index) for index, (group, names) in enumerate(GROUPS.items())]
    columns = 2
    rows = math.ceil(len(charts) / columns)
    width, height = columns * (_WIDTH + _LEFT + 40), rows * (_HEIGHT + _TOP + 30 + 5 * _LEGEND)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *charts, "</svg>", ""])


def _chart(found: Found, names: Sequence[str], group: str, index: int) -> str:
    counts = list(found)
    times = [found[count][name].seconds for count in counts for name in names if name in found[count]]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    left = (index % 2) * (_WIDTH + _LEFT + 40) + _LEFT
    top = (index // 2) * (_HEIGHT + _TOP + 30 + 5 * _LEGEND) + _TOP
    widest = math.log10(counts[-1] / counts[0])

    def x(count: float) -> float:
        return left + math.log10(count / counts[0]) / widest * _WIDTH

    def y(seconds: float) -> float:
        return top + (high - math.log10(seconds)) / (high - low) * _HEIGHT

    parts = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{group}: CPU time by their number</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        label = f"{10.0 ** (power + 3):g} ms"
        parts.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{left - 5}" y="{at + 4:.1f}" text-anchor="end" fill="#64748b">{label}</text>')
    parts += [
        f'<text x="{x(count):.1f}" y="{top + _HEIGHT + 14}" text-anchor="middle" fill="#64748b">{count:,}</text>'
        for count in counts
    ]
    for number, name in enumerate(names):
        color = _COLORS[number]
        points = [(x(count), y(found[count][name].seconds)) for count in counts if name in found[count]]
        line = " ".join(f"{at:.1f},{of:.1f}" for at, of in points)
        below = top + _HEIGHT + 32 + number * _LEGEND
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{at:.1f}" cy="{of:.1f}" r="3" fill="{color}"/>' for at, of in points]
        parts.append(f'<rect x="{left}" y="{below - 8}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{left + 16}" y="{below + 1}">{name}</text>')
    return "\n".join(parts)


def write(found: Found, about: str) -> str:
    """Put table and plot into the page; return its new content."""
    figures = f"{_BEGIN}\n\n{about}\n\n{table(found)}\n\n![CPU time by number]({_PLOT})\n\n{_END}"
    text = _PAGE.read_text()
    _PAGE.write_text(re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: figures, text, flags=re.DOTALL))
    (_PAGE.parent / _PLOT).write_text(plot(found))
    return figures
