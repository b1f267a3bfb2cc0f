"""Runs the tests of this directory: `python -m tests.setups [pytest's arguments]`."""

from __future__ import annotations

from tests.cluster.__main__ import run
from tests.support.controller import ROOT

if __name__ == "__main__":
    run(ROOT / "tests" / "setups")
