"""`fal apps simulate` and `explain`: reading traces, drawing charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from fal_cli.commands.apps.traces import read_trace
from fal_cli.exit_codes import CommandError
from fal_cli.presentation.charts import render, ticks
from fal_cli.presentation.pictures import layout, svg, write
from fal_grpc.adapter.scaling import AppSimulation, SimulationPoint, simulation
from fal_grpc.v1 import app_pb2


def played() -> AppSimulation:
    points = [
        SimulationPoint(at_seconds=float(i), runners=i // 10, ready=i // 10, in_flight=i // 20, queued=40 - i)
        for i in range(41)
    ]
    message = app_pb2.SimulateAppResponse(settings=app_pb2.AliasInfo(max_concurrency=4), most_runners=4)
    return replace(simulation(message), points=tuple(points))


@pytest.mark.parametrize(
    "text",
    [
        "time,duration\n1.5,2\n2,0.5\n",
        "1.5,2\n2,0.5\n",
        "# a comment\n1.5, 2\n\n2, 0.5\n",
        "duration,at\n2,1.5\n0.5,2\n",
        '{"time": 1.5, "duration": 2}\n{"time": 2, "duration": 0.5, "status": 200}\n',
        "2026-01-01T00:00:01.500Z,2\n2026-01-01T01:00:02+01:00,0.5\n",
    ],
)
def test_a_trace_is_read_from_its_first_request_on(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    assert read_trace(path) == [(0.0, 2.0), (0.5, 0.5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no request"), ("time,duration\n", "holds no request"), ("1,2\nx,y\n", "Line 2 of the trace")],
)
def test_a_malformed_trace_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(CommandError, match=message):
        read_trace(path)


def test_the_chart_fits_the_width() -> None:
    for width in (40, 80, 133):
        lines = render(played(), width=width, blocks=True).splitlines()
        assert max(map(len, lines)) <= width
        assert any("█" in line for line in lines)
    plain = render(played(), width=60, blocks=False)
    assert plain.isascii()
    assert "Requests waiting" in plain


@pytest.mark.parametrize(
    ("end", "names"),
    [
        (0, ["0 s"]),
        (0.3, ["0 s", "0.1 s", "0.2 s", "0.3 s"]),
        (17, ["0 s", "5 s", "10 s", "15 s"]),
        (607.86, ["0 min", "5 min", "10 min"]),
        (3 * 3600, ["0 h", "1 h", "2 h", "3 h"]),
        (40 * 86400, ["0 d", "10 d", "20 d", "30 d", "40 d"]),
        (1e8, ["0 d", "1000 d"]),
    ],
)
def test_times_are_round_numbers(end: float, names: list[str]) -> None:
    assert [name for _, name in ticks(end, 4)] == names


def test_the_axis_has_room_for_its_names() -> None:
    for width in (40, 80, 133):
        *_, marks, words = render(played(), width=width, blocks=True).splitlines()
        assert len(words) <= width
        assert marks.count("|") == len(words.split("s")) - 1 >= 2


def test_a_picture_is_svg_or_png(tmp_path: Path) -> None:
    picture = layout(played(), "an <app> & more")
    root = ET.fromstring(svg(picture))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"an <app> & more", "Runners", "Requests in flight", "Requests waiting"} <= set(texts)
    assert {"0 s", "20 s", "40 s", "started", "ready", "Time since the first request"} <= set(texts)
    # Two lines and a curve for each of three panels, the runners that are ready, and a line for each of nine times.
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 9 + 1 + 9
    write(picture, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    write(picture, tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text() == svg(picture)
