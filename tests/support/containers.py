"""A fake container engine on PATH that records its calls."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("fake_engine.py")


@dataclass(frozen=True, kw_only=True)
class FakeEngine:
    """An executable with an engine's name that records its calls."""

    path: Path
    record: Path

    def variables(self, **more: str) -> dict[str, str]:
        """Return environment variables with it as the only engine."""
        return {"PATH": f"{self.path.parent}:/nowhere", "CONTAINERS_RECORD": str(self.record), **more}

    def calls(self, verb: str) -> list[dict[str, Any]]:
        """Return its calls, in order."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [call for call in map(json.loads, lines) if call["arguments"][0] == verb]

    @property
    def tried(self) -> list[list[str]]:
        """Return the arguments of its trials, in order."""
        tried = self.record.with_name("tried")
        return [json.loads(line) for line in tried.read_text().splitlines()] if tried.exists() else []


def make_engine(folder: Path, name: str = "podman") -> FakeEngine:
    """Create a fake engine in its own directory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {SCRIPT} "$@"\n')
    path.chmod(0o755)
    return FakeEngine(path=path, record=folder / "calls")
