"""Directories that others' code has filled are deleted, whatever is in them. Nothing outside is deleted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fal_runner.process.foreign_files import read_regular
from fal_runner.process.removal import remove_tree


def nest(top: Path, depth: int) -> None:
    """Make directories in one another, each with a file."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir("d" * 50, dir_fd=here)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_nothing_is_too_deep(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 1200)  # more than Python calls in one another, and than a path can be long
    remove_tree(top)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o500])
def test_rights_that_were_taken_away_are_taken_back(tmp_path: Path, mode: int) -> None:
    below = tmp_path / "top" / "hidden" / "deeper"
    below.mkdir(parents=True)
    (below / "file").write_text("")
    for directory in (below, below.parent, tmp_path / "top"):
        directory.chmod(mode)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_links_are_deleted_and_what_they_lead_to_is_not(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (top / "below").mkdir(parents=True)
    for place in (top, top / "below"):
        (place / "link").symlink_to(outside)
        (place / "file").symlink_to(outside / "file")
        (place / "loop").symlink_to("loop")
    remove_tree(top)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    (tmp_path / "link").symlink_to(outside)
    remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").read_text() == "kept"


def test_pipes_sockets_and_names_of_our_own_are_no_obstacle(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / ".fal-removed-0" / ".fal-removed-0").mkdir(parents=True)
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))
        remove_tree(top)
    remove_tree(top)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789")
    assert read_regular(tmp_path / "file", 4) == b"0123"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    (tmp_path / "linked").symlink_to("directory")
    (tmp_path / "directory" / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        for name in ("pipe", "link", "directory", "socket", "missing", "linked/file"):
            with pytest.raises(OSError, match=r"\[Errno"):
                read_regular(tmp_path / name, 4)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(Path("/dev/zero"), 4)
