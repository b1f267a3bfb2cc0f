"""The supply chain: builds are reproducible, and each locked package has hashes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==(\S+)")
SITE = Path("fal_server/http/documentation")
BUILT = ("fal", "fal_grpc", "fal_mcp", "fal_server", "fal_runner", "cli")


def pins(lock: Path) -> dict[str, str]:
    """Return the versions that a lock names."""
    found = (PIN.match(line) for line in lock.read_text().splitlines())
    return {match[1].lower(): match[2] for match in found if match}


def build(directory: Path, *, umask: int, time: int) -> Path:
    """Build the wheel from a copy of the sources. It is as at another time and place."""
    sources = directory / "sources"
    sources.mkdir(parents=True)
    for name in BUILT:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    shutil.rmtree(sources / SITE, ignore_errors=True)
    (sources / SITE / "assets").mkdir(parents=True)  # as `make docs` leaves it, although git ignores it
    (sources / SITE / "index.html").write_text("<h1>Documentation</h1>")
    (sources / SITE / "assets" / "page.css").write_text("")
    for path in sources.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (time, time))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory / "dist")]
    variables = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1767225600", "TZ": "UTC-5"}
    subprocess.run(command, cwd=sources, env=variables, check=True, capture_output=True, umask=umask)
    (wheel,) = (directory / "dist").glob("*.whl")
    return wheel


def test_two_builds_give_one_wheel(tmp_path: Path) -> None:
    one = build(tmp_path / "one", umask=0o022, time=1_600_000_000)
    other = build(tmp_path / "another" / "place", umask=0o027, time=1_700_000_000)
    assert one.name == other.name
    hashes = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (one, other)]
    assert hashes[0] == hashes[1]
    with zipfile.ZipFile(one) as opened:
        names = opened.namelist()
    assert {"fal_server/__main__.py", f"{SITE}/index.html", f"{SITE}/assets/page.css"} <= set(names)
    assert {"fal_cli/CHANGELOG.md", "fal_mcp/llms.txt", "fal_cli/skills/fal-debug/SKILL.md"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_package_of_a_lock_has_hashes(lock: Path) -> None:
    entries = [entry for entry in re.split(r"\n(?=\S)", lock.read_text()) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]


def test_a_controller_is_made_of_what_is_tested() -> None:
    tested, handed_out = pins(ROOT / "requirements/dev.txt"), pins(ROOT / "requirements/controller.txt")
    assert {"grpcio", "starlette", "uv"} <= set(handed_out)
    assert handed_out.items() <= tested.items()
    assert "pytest" not in handed_out
