"""Commands whose standard streams are closed end as they do otherwise."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.controller import BIN


def run(place: Path, command: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    return subprocess.run(
        ["sh", "-c", f'exec "$0" {command} {redirections}', str(BIN / "fal")],
        env={**kept, "HOME": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["--version", "help", "profile list", "runners list --nope", "apps list"])
def test_a_closed_stream_changes_nothing_else(tmp_path: Path, command: str, redirections: str) -> None:
    whole, found = run(tmp_path, command), run(tmp_path, command, redirections)
    assert found.returncode == whole.returncode
    assert found.stdout == ("" if ">&-" in redirections.replace("2>&-", "") else whole.stdout)
    assert found.stderr == ("" if "2>&-" in redirections else whole.stderr)
