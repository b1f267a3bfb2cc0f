"""The events of a run. They are written to a file line by line for the checker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

Event: TypeAlias = Mapping[str, Any]


class History:
    """Events in the order of recording. Each has `kind` and `at`, in seconds since 1970.

    Args:
        path: gets each event at once as a line of JSON, so that an interrupted run can be checked, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._file = path.open("w")

    def note(self, kind: str, *, at: float | None = None, **fields: object) -> None:
        """Add an event that happened now, or at a given time."""
        event = {"kind": kind, "at": time.time() if at is None else at, **fields}
        self.events.append(event)
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[Event]:
    """Return the events of a run."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_kind(events: Iterable[Event], kind: str) -> Iterator[Event]:
    """Return the events of one kind."""
    return (event for event in events if event["kind"] == kind)
