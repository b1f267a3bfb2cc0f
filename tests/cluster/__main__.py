"""Runs the tests of this directory: `python -m tests.cluster [pytest's arguments]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from tests.cluster.far import far_app
from tests.support import machines
from tests.support.controller import ROOT, running


def run(tests: Path) -> NoReturn:
    """Have the cache hold what apps need. Machines reach no registry. Then run pytest among them."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory) / "controller", "--gpu", "GPU-FAR=1") as local,
    ):
        app = Path(directory) / "far.py"
        app.write_text(far_app(0))
        local.fal("deploy", str(app))
        assert local.call("/local/far", {}, key=local.key).status == 200
    machines.main([sys.executable, "-m", "pytest", str(tests), *sys.argv[1:]])


if __name__ == "__main__":
    run(ROOT / "tests" / "cluster")
