"""Both packages in one environment overwrite each other's files, which we report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.controller import ROOT


def installed_in_turn(folder: Path, *sources: Path) -> Path:
    """Install both packages `fal` into one folder like pip. Later files replace earlier ones."""
    for source in sources:
        shutil.copytree(source / "fal", folder / "fal", dirs_exist_ok=True)
        for metadata in source.glob("fal-*.dist-info"):
            shutil.copytree(metadata, folder / metadata.name, dirs_exist_ok=True)
    return folder


@pytest.fixture
def published(python: Path) -> Path:
    return next(python.parent.parent.glob("lib/python3.*/site-packages"))


def run(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=home, capture_output=True, text=True, check=False
    )


def test_with_ours_on_top_imports_warn_and_the_doctor_says_what_to_do(published: Path, tmp_path: Path) -> None:
    folder = installed_in_turn(tmp_path / "site", published, ROOT)
    done = run(folder, tmp_path, "-c", "import fal; print(fal.App)")
    assert "<class" in done.stdout
    assert "RuntimeWarning: The published fal package is installed in the same environment" in done.stderr
    doctor = run(folder, tmp_path, "-m", "fal_cli", "doctor")
    assert doctor.returncode == 1
    assert "other package: the package fal" in doctor.stdout


def test_with_theirs_on_top_a_command_says_why_it_fails(published: Path, tmp_path: Path) -> None:
    folder = installed_in_turn(tmp_path / "site", ROOT, published)
    done = run(folder, tmp_path, "-m", "fal_cli", "profile", "list")
    assert done.returncode == 1
    assert "is in the same environment and overwrote a part of this one" in done.stderr


def test_alone_nothing_is_said(tmp_path: Path) -> None:
    assert run(ROOT, tmp_path, "-W", "error", "-c", "import fal").stderr == ""
