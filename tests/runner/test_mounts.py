"""A runner's view has /data and /app, and commands share it. The machine's root is unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.controller import ROOT

LOOK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from fal_runner.isolation import mounts
environ = dict(os.environ)
why = mounts.enter(environ, sys.argv[2:])
seen = {name: sorted(os.listdir(name)) if os.path.isdir(name) else None for name in ("/data", "/app")}
print(json.dumps([why, seen, environ.get("FAL_DATA_DIR"), environ.get("FAL_APP_DIR"), "FAL_JOIN_PROCESS" in environ,
                  os.path.exists("/proc/self/stat"), os.path.exists(sys.executable)]))
sys.stdout.flush()
sys.stdin.read()
"""


def process_info(data: Path | None, app: Path | None, *needed: str, join: int | None = None) -> subprocess.Popen[str]:
    variables = {"FAL_DATA_DIR": data, "FAL_APP_DIR": app, "FAL_JOIN_PROCESS": join}
    return subprocess.Popen(
        [sys.executable, "-c", LOOK, str(ROOT), *needed],
        env={**os.environ, **{name: str(value) for name, value in variables.items() if value is not None}},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def report_of(process: subprocess.Popen[str]) -> list:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    data, app = tmp_path / "d", tmp_path / "a"
    data.mkdir()
    app.mkdir()
    (data / "weights").write_text("w")
    (app / "main.py").write_text("m")
    return data, app


def test_data_and_app_are_there_or_it_says_why(places: tuple[Path, Path]) -> None:
    before = {name: Path(name).exists() for name in ("/data", "/app")}
    process = process_info(*places)
    why, seen, data, app, _, proc, python = report_of(process)
    if why:
        assert (data, app) == tuple(map(str, places))  # not allowed here, so the variables name the directories
    else:
        assert seen == {"/data": ["weights"], "/app": ["main.py"]}
        assert (data, app) == ("/data", "/app")
    assert proc
    assert python
    command = process_info(*places, join=process.pid)
    why_not, also_seen, *_, left, _, _ = report_of(command)
    assert (why_not, also_seen, left) == ("", seen, False)
    end(command)
    end(process)
    assert {name: Path(name).exists() for name in ("/data", "/app")} == before


def test_what_is_needed_is_never_hidden(places: tuple[Path, Path]) -> None:
    process = process_info(*places, "/data/python/bin/python")
    why, _, data, *_ = report_of(process)
    assert "/data/python/bin/python is needed" in why
    assert data == str(places[0])
    end(process)


def test_nothing_is_done_unless_asked_for(tmp_path: Path) -> None:
    process = process_info(None, None)
    assert report_of(process)[0] == ""
    assert Path(f"/proc/{process.pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
    end(process)


def test_a_process_that_is_gone_is_not_joined(places: tuple[Path, Path]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    process = process_info(*places, join=gone.pid)
    assert report_of(process)[0] == ""
    end(process)
