"""A controller in a temporary folder ends with its starting process. It leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fal.testing import TemporaryController
from fal.testing.controller import ControllerStartError
from tests.support.waiting import until

PROGRAM = """
import signal
from fal.testing import TemporaryController

with TemporaryController() as controller:
    print(controller.state_dir, flush=True)
    signal.pause()
"""


def test_it_ends_with_a_process_that_is_killed_and_leaves_nothing(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner.stdout:
        folder = Path(owner.stdout.readline().strip())
    assert (folder / "fal.db").exists()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until(lambda: not folder.exists(), "the controller removes its folder")


@pytest.mark.parametrize(
    ("option", "error"),
    [("--no-such-option", ControllerStartError), ("no process has this\0", ValueError)],
)
def test_one_that_does_not_start_leaves_nothing(
    option: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(error):
        TemporaryController(option).start()
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors
