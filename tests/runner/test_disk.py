"""A runner's disk usage, for every arrangement of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fal_grpc.v1 import shim_pb2
from fal_runner.shim.disk import DiskBound

MIB = 1024 * 1024


def measured(*places: Path, processes: Sequence[int] = ()) -> int:
    """Return the counted whole MiB."""
    return DiskBound(shim_pb2.ResourceLimits(), places, lambda: processes).measure() // MIB


def write(path: Path, mib: int) -> Path:
    path.write_bytes(os.urandom(mib * MIB))
    return path


def test_files_count_once_however_many_names_they_have(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    os.link(write(one / "a", 3), two / "b")
    write(two / "c", 2)
    assert measured(one, two) == 5
    assert measured(one, two, tmp_path / "missing") == 5


def test_what_links_lead_to_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "outside", 3)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "up").symlink_to(tmp_path)
    assert measured(inside) == 0


def test_holes_do_not_count(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measured(tmp_path) == 0


def test_a_deleted_file_counts_while_a_process_has_it_open(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.write(os.urandom(4 * MIB))
        file.flush()
        (tmp_path / "large").unlink()
        assert measured(tmp_path) == 0
        assert measured(tmp_path, processes=[os.getpid()]) == 4


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o444])
def test_a_directory_without_rights_is_looked_into(tmp_path: Path, mode: int) -> None:
    hidden = tmp_path / "hidden" / "deeper"
    hidden.mkdir(parents=True)
    write(hidden / "large", 3)
    for directory in (hidden, hidden.parent):
        directory.chmod(mode)
    assert measured(tmp_path) == 3


def test_a_directory_that_no_path_reaches_is_looked_into(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=here)
        there = os.open("d" * 200, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    file = os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, os.urandom(2 * MIB))
    os.close(file)
    os.close(here)
    assert measured(tmp_path) == 2
