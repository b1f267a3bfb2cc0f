"""Reads requests' traces for `fal apps simulate`, as CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from fal_cli.exit_codes import CommandError

_TIMES = ("time", "at", "timestamp", "at_seconds")
_DURATIONS = ("duration", "seconds", "duration_seconds")


def read_trace(path: Path) -> list[tuple[float, float]]:
    """Return the requests of a trace, in the order of the file.

    A line is `time,duration` (with or without a heading), or a JSON object with `time` and `duration`. A time is a
    number of seconds or an ISO timestamp.

    Returns:
        For each request, the seconds since the first one and its duration in seconds.

    Raises:
        CommandError: the file cannot be read, or a line is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The trace {path} cannot be read: {error}") from None
    rows = list(_json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text))
    found = [_request(path, number, *row) for number, row in rows]
    if not found:
        raise CommandError(
            f"The trace {path} holds no request: write lines such as 0.5,2 (time and duration in seconds)"
        )
    first = min(at for at, _ in found)
    return [(at - first, duration) for at, duration in found]


def _json_rows(text: str) -> Iterator[tuple[int, tuple[object, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                item = json.loads(line)
            except ValueError:
                item = None
            fields: Mapping[str, object] = item if isinstance(item, dict) else {}
            yield number, (_first(fields, _TIMES), _first(fields, _DURATIONS))


def _csv_rows(text: str) -> Iterator[tuple[int, tuple[object, object]]]:
    columns = (0, 1)
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        headings = [cell.lower() for cell in cells]
        if number == 1 and set(headings) & set(_TIMES):
            columns = (_place(headings, _TIMES, 0), _place(headings, _DURATIONS, 1))
            continue
        yield number, tuple(cells[c] if c < len(cells) else None for c in columns)  # type: ignore[misc]


def _request(path: Path, number: int, time: object, duration: object) -> tuple[float, float]:
    try:
        return _seconds(time), float(str(duration))
    except ValueError:
        raise CommandError(
            f"Line {number} of the trace {path} is not a request: write a time (seconds, or an ISO timestamp) and a "
            "duration in seconds"
        ) from None


def _seconds(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        at = datetime.fromisoformat(str(value))
        return (at if at.tzinfo else at.astimezone()).timestamp()


def _first(fields: Mapping[str, object], names: Iterable[str]) -> object:
    return next((fields[name] for name in names if name in fields), None)


def _place(headings: list[str], names: Iterable[str], otherwise: int) -> int:
    return next((headings.index(name) for name in names if name in headings), otherwise)
