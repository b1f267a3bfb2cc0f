"""Records the results of the official packages' commands. The page of compatibility uses them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / ".cache" / "interop-records.json"

covers = pytest.mark.covers


@dataclass(eq=False)
class Recorder:
    """A pytest plugin that notes each command's result. It is whether every test which covers it passed."""

    outcomes: dict[str, bool]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record one phase of one test. With several processes, the first one calls this."""
        for name, value in report.user_properties:
            if name == "covers":
                self.outcomes[str(value)] = self.outcomes.get(str(value), True) and report.passed

    def pytest_sessionfinish(self) -> None:
        """Store the results."""
        RECORDS.parent.mkdir(exist_ok=True)
        RECORDS.write_text(json.dumps(self.outcomes, indent=1, sort_keys=True) + "\n")
