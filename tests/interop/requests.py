"""Compares the requests of two clients for one command. They go to a foreign controller."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# Both compute this from the current time, and one runs after the other.
APART_SECONDS = 1800
FOREIGN = Path(__file__).with_name("foreign.py")


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A running foreign controller, and the file of its recorded requests."""

    host: str
    records: Path

    def take(self) -> list[dict[str, Any]]:
        """Return the requests since the last call, in order."""
        lines = self.records.read_text().splitlines()
        self.records.write_text("")
        return [json.loads(line) for line in lines]


@contextmanager
def foreign(python: Path, directory: Path) -> Generator[Foreign]:
    """Run a foreign controller for the duration of a block."""
    records = directory / "records.jsonl"
    records.touch()
    with subprocess.Popen(
        [python, FOREIGN, records], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        yield Foreign(host=f"127.0.0.1:{port}", records=records)
        assert process.stdin is not None
        process.stdin.close()


def comparable(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without values that may differ. These are pickles and pinned versions."""
    body = dict(request["request"])
    for name in ("function", "setup_func"):
        if name in body:
            body[name] = {**body[name], "definition": bool(body[name].get("definition"))}
    if "start_time" in body:
        body["start_time"] = datetime.fromisoformat(body["start_time"]).timestamp()
    for environment in body.get("environments", []):
        configuration = environment.get("configuration", {})
        if "requirements" in configuration:
            configuration["requirements"] = unpinned(configuration["requirements"])
    return {**request, "request": body}


def unpinned(requirements: list[Any]) -> list[Any]:
    """Return requirements, or layers of them, without versions, sorted within each layer."""
    if requirements and isinstance(requirements[0], list):
        return [unpinned(layer) for layer in requirements]
    return sorted(re.split(r"[=<>~!]", requirement)[0] for requirement in requirements)


def differences(theirs: Any, ours: Any, place: str = "") -> list[str]:
    """Return the differences between two JSON values, one in each line."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted({*theirs, *ours})
        return [
            line
            for name in names
            for line in differences(theirs.get(name, "absent"), ours.get(name, "absent"), f"{place}.{name}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [
            line
            for number, (one, other) in enumerate(zip(theirs, ours, strict=True))
            for line in differences(one, other, f"{place}[{number}]")
        ]
    if place.endswith(".start_time") and isinstance(theirs, float) and isinstance(ours, float):
        return [] if abs(theirs - ours) < APART_SECONDS else [f"{place}: theirs {theirs}, ours {ours}"]
    return [] if theirs == ours else [f"{place.lstrip('.')}: theirs {theirs!r:.300}, ours {ours!r:.300}"]
