"""A short `make torture` with a seed that kills the controller, and a shim while no controller watches."""

from __future__ import annotations

import subprocess
import sys

from tests.support.controller import ROOT

SHORT = "--seed 355 --minutes 0.05 --storm 3 --least 1 --calm 4 --clients 2 --apps 2"


def test_a_short_seed_breaks_no_promise() -> None:
    command = [sys.executable, "-m", "tests.torture", *SHORT.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"broken promises": 0' in done.stdout
