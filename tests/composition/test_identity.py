"""A copy of a state directory is recognized on every file system. A remount does not count as a copy."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fal_server.composition.identity import DirectoryIdentity, claim_directory
from fal_server.composition.state import StateDir
from fal_server.core.faults import Unavailable

DISK, OTHER_DISK = os.makedev(254, 0), os.makedev(254, 16)
MOUNT, NEXT_MOUNT = os.makedev(0, 48), os.makedev(0, 46)
ON_DISK = DirectoryIdentity(
    directory_id="d", device=DISK, inode=7, boot_id="b1", path="/state", lock_inode=11, filesystem="ext4"
)
ON_OVERLAY = replace(ON_DISK, device=MOUNT, filesystem="overlay")
ON_FUSE = replace(ON_DISK, device=MOUNT, filesystem="fuse.sshfs")


@pytest.mark.parametrize(
    ("known", "found", "same"),
    [
        (ON_DISK, ON_DISK, True),
        (ON_DISK, replace(ON_DISK, path="/moved"), True),
        (ON_DISK, replace(ON_DISK, device=OTHER_DISK, boot_id="b2"), True),
        (ON_DISK, replace(ON_DISK, inode=8, lock_inode=12, path="/copy"), False),
        (ON_DISK, replace(ON_DISK, inode=8, lock_inode=12), False),
        (ON_DISK, replace(ON_DISK, device=OTHER_DISK, path="/copy"), False),
        (ON_OVERLAY, replace(ON_OVERLAY, inode=8), True),
        (ON_OVERLAY, replace(ON_OVERLAY, inode=8, device=NEXT_MOUNT), True),
        (ON_OVERLAY, replace(ON_OVERLAY, inode=8, lock_inode=12), False),
        (ON_OVERLAY, replace(ON_OVERLAY, device=NEXT_MOUNT, path="/copy"), False),
        (ON_FUSE, replace(ON_FUSE, inode=8, lock_inode=12, device=NEXT_MOUNT), True),
        (ON_FUSE, replace(ON_FUSE, path="/copy"), False),
        (ON_FUSE, replace(ON_DISK, lock_inode=12), False),
        (replace(ON_DISK, lock_inode=0, filesystem=""), ON_DISK, True),
        (replace(ON_DISK, lock_inode=0, filesystem=""), replace(ON_DISK, inode=8), False),
    ],
)
def test_what_is_the_same_directory(known: DirectoryIdentity, found: DirectoryIdentity, same: bool) -> None:
    assert known.is_of(found) is same


def test_a_directory_may_move_and_a_copy_is_refused(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    with state.held():
        assert claim_directory(state, adopt_copy=False) is False
    moved = StateDir((tmp_path / "state").rename(tmp_path / "moved"))
    with moved.held():
        assert claim_directory(moved, adopt_copy=False) is False
    copy = StateDir(Path(shutil.copytree(moved.root, tmp_path / "copy")))
    with copy.held():
        with pytest.raises(Unavailable, match="--adopt-copy"):
            claim_directory(copy, adopt_copy=False)
        assert claim_directory(copy, adopt_copy=True) is True
        assert claim_directory(copy, adopt_copy=False) is False
