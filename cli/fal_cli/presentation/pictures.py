"""Draws a simulation as a picture. One layout is written as SVG or, with Pillow, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from fal_cli.presentation.charts import series, ticks

if TYPE_CHECKING:
    from fal.api import AppSimulation

WIDTH, PANEL, GAP, LEFT, TOP, RIGHT = 900, 150, 44, 60, 70, 20
_COLORS = ("#2563eb", "#16a34a", "#dc2626")
_PALE = "#93c5fd"
_INK, _FAINT = "#111827", "#d1d5db"
_SIZE = 13
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Polyline:
    """A line through points, in pixels from the upper left corner."""

    points: tuple[tuple[float, float], ...]
    color: str
    thick: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A line of text: `x` is its left end (its right end if `right`), `y` its baseline."""

    x: float
    y: float
    text: str
    right: bool = False
    color: str = _INK


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All elements to draw."""

    height: int
    lines: tuple[Polyline, ...]
    labels: tuple[Label, ...]


def layout(simulation: AppSimulation, title: str) -> Picture:
    """Lay out three panels over one time axis. The first also shows how many runners are ready."""
    panels = series(simulation)
    end = simulation.points[-1].at_seconds or 1.0
    foot = TOP + len(panels) * (PANEL + GAP) - GAP
    labels = [Label(x=LEFT, y=24, text=title), Label(x=LEFT, y=foot + 42, text="Time since the first request")]
    labels.append(Label(x=WIDTH - RIGHT, y=TOP - 8, text="ready", right=True, color=_PALE))
    labels.append(Label(x=WIDTH - RIGHT - 46, y=TOP - 8, text="started", right=True, color=_COLORS[0]))
    lines: list[Polyline] = []
    for at, name in ticks(end, _MOST_TICKS):
        x = LEFT + (WIDTH - RIGHT - LEFT) * at / end
        lines.append(Polyline(points=((x, TOP), (x, foot + 5)), color=_FAINT))
        last = x > WIDTH - RIGHT - 40
        labels.append(Label(x=WIDTH - RIGHT if last else x - 3, y=foot + 20, text=name, right=last))
    for number, (name, values) in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        most = max(*values, 1)
        for value in (0, most):
            y = top + PANEL * (1 - value / most)
            lines.append(Polyline(points=((LEFT, y), (WIDTH - RIGHT, y)), color=_FAINT))
            labels.append(Label(x=LEFT - 8, y=y + 4, text=str(value), right=True))
        labels.append(Label(x=LEFT, y=top - 8, text=name, color=_COLORS[number]))
        if number == 0:
            ready = [point.ready for point in simulation.points]
            lines.append(Polyline(points=_steps(simulation, ready, top, most, end), color=_PALE, thick=2))
        lines.append(Polyline(points=_steps(simulation, values, top, most, end), color=_COLORS[number], thick=2))
    return Picture(height=foot + 58, lines=tuple(lines), labels=tuple(labels))


def _steps(
    simulation: AppSimulation, values: Sequence[int], top: float, most: int, end: float
) -> tuple[tuple[float, float], ...]:
    """Draw steps instead of slopes: a number holds until it changes."""
    found: list[tuple[float, float]] = []
    for point, value in zip(simulation.points, values, strict=True):
        x = LEFT + (WIDTH - RIGHT - LEFT) * point.at_seconds / end
        y = top + PANEL * (1 - value / most)
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return tuple(found)


def write(picture: Picture, path: Path) -> None:
    """Write a picture in the file ending's format, .svg or .png.

    Raises:
        OSError: the file cannot be written.
        ModuleNotFoundError: a PNG needs Pillow, which is not installed.
    """
    if path.suffix.lower() == ".png":
        _write_png(picture, path)
    else:
        path.write_text(svg(picture), encoding="utf-8")


def svg(picture: Picture) -> str:
    size = f'width="{WIDTH}" height="{picture.height}" viewBox="0 0 {WIDTH} {picture.height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{_SIZE}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for line in picture.lines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.color}" stroke-width="{line.thick}"/>')
    for label in picture.labels:
        anchor = ' text-anchor="end"' if label.right else ""
        parts.append(
            f'<text x="{label.x:.1f}" y="{label.y:.1f}" fill="{label.color}"{anchor}>{escape(label.text)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _write_png(picture: Picture, path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    scale = 2  # sharp on dense screens, too
    image = Image.new("RGB", (WIDTH * scale, picture.height * scale), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_SIZE * scale)
    for line in picture.lines:
        draw.line([(x * scale, y * scale) for x, y in line.points], fill=line.color, width=line.thick * scale)
    for label in picture.labels:
        place = (label.x * scale, label.y * scale)
        draw.text(place, label.text, fill=label.color, font=font, anchor="rs" if label.right else "ls")
    image.save(path, format="PNG")
