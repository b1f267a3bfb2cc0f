"""Wrong command lines have the official client's exit code before any call."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.controller import BIN
from tests.support.official import CONFIG

# Nothing listens there: a command that got as far as a call would fail with another code.
NOWHERE = {"FAL_KEY": "a:b", "FAL_HOST": "127.0.0.1:9", "FAL_GRPC_HOST": "127.0.0.1:9", "FAL_REST_HOST": "127.0.0.1:9"}
WRONG = [
    "--nonsense",
    "nonsense",
    "runners",
    "runners nonsense",
    "runners stop",
    "runners list --state asleep",
    "runners list --since yesterdayish",
    "runners exec",
    "runners gpus --nonsense",
    "apps scale hello --keep-alive many",
    "apps set-rev hello",
    "apps list --sort-by-nonsense",
    "keys create --scope NONE",
    "keys revoke",
    "secrets set",
    "deploy --auth nobody",
    "deploy --strategy sudden",
    "deploy --attach --detach",
    "queue size",
    "environments delete",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_ends_as_with_the_official_client(line: str, python: Path, tmp_path: Path) -> None:
    (tmp_path / ".fal").mkdir()
    (tmp_path / ".fal" / "config.toml").write_text(CONFIG)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **NOWHERE}
    both = [
        subprocess.Popen(
            [place / "fal", *line.split()],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for place in (python.parent, BIN)
    ]
    said = [process.communicate(timeout=180)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
