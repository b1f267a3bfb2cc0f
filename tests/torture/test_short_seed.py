"""A short `make torture` with a seed that kills the controller. It also kills a shim while no controller watches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.controller import ROOT
from tests.support.left_behind import groups
from tests.support.waiting import until

SHORT = "--seed 114 --minutes 0.05 --storm 3 --least 1 --calm 4 --clients 2 --apps 2"


def test_a_short_seed_breaks_no_promise() -> None:
    command = [sys.executable, "-m", "tests.torture", *SHORT.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"broken promises": 0' in done.stdout
    assert '"controller killed": ' in done.stdout


def test_an_interrupted_run_leaves_no_process_behind() -> None:
    command = [sys.executable, "-u", "-m", "tests.torture", *SHORT.replace("0.05", "5").split(), "--faults", "freeze"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().split()[-1])
    until(lambda: groups(folder / "state"), "a runner runs", 240)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal's Ctrl-C, which also reaches the controller
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert groups(folder / "state") == {}
    assert not folder.exists()
