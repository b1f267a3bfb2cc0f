"""`fal runners cp` against a real runner: files and folders both ways."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.place import Place, entered


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("copying")) as place:
        yield place


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o777)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_folder_goes_there_and_back(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "large").write_bytes(os.urandom(3_000_000))
    (source / "empty").touch()
    (source / "run me").write_text("#!/bin/sh\n")
    (source / "run me").chmod(0o755)
    copy, fal = f"{place.runner_id}:copy", place.controller.fal
    assert "(2.9 MiB)" in fal("runners", "cp", str(source), copy).stderr
    assert "(2.9 MiB)" in fal("runners", "cp", copy, str(tmp_path / "back")).stderr
    assert tree(tmp_path / "back") == tree(source)
    fal("runners", "cp", str(source / "empty"), copy)  # the folder exists, so the copy goes into it
    (tmp_path / "into").mkdir()
    fal("runners", "cp", f"{copy}/run me", str(tmp_path / "into"))
    assert tree(tmp_path / "into") == {"run me": tree(source)["run me"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "into", "source"]  # and nothing incomplete


def test_the_app_s_own_modules_and_warnings_are_not_in_the_way(place: Place, tmp_path: Path) -> None:
    fal = place.controller.fal
    (tmp_path / "tarfile.py").write_text("raise SystemExit('the app has a module of this name')\n")
    fal("runners", "cp", str(tmp_path / "tarfile.py"), f"{place.runner_id}:tarfile.py")
    try:
        fal("runners", "cp", f"{place.runner_id}:tarfile.py", str(tmp_path / "back.py"))
        fal("runners", "cp", str(tmp_path / "back.py"), f"{place.runner_id}:back.py")
    finally:
        fal("runners", "exec", place.runner_id, "--", "rm", "tarfile.py")
    assert (tmp_path / "back.py").read_text() == (tmp_path / "tarfile.py").read_text()


def test_what_is_not_there_is_said_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    done = place.controller.fal("runners", "cp", f"{place.runner_id}:/no/such", str(tmp_path / "x"), check=False)
    assert done.returncode == 1
    assert "there is no /no/such" in done.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    done = place.controller.fal("runners", "cp", str(tmp_path / "file"), f"{place.runner_id}:/no/such/x", check=False)
    assert (done.returncode, "there is no folder /no/such" in done.stderr) == (1, True)
