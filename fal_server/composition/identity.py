"""The identity of a state directory. It tells the directory from a copy, whose runners belong to the original."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fal_runner.process.proc import boot_id
from fal_server.composition.state import StateDir, write_private
from fal_server.core.faults import Unavailable

log = logging.getLogger(__name__)
_FILE = "directory.json"
# These file systems make up inodes at each mount, so only the path distinguishes a directory from its copy.
_CHANGING_INODES = frozenset({"fuse", "fuseblk", "9p", "virtiofs", "vfat", "exfat", "cifs", "smb3", "vboxsf", "aufs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryIdentity:
    """The content of `directory.json`.

    Attributes:
        directory_id: stays with the directory when it is renamed.
        device, inode: of the directory.
        boot_id: the boot that the device number refers to.
        path: the directory's path at the last start.
        lock_inode: of `controller.lock`; 0 if an earlier version wrote the file.
        filesystem: its type, such as ext4; empty if unknown.
    """

    directory_id: str
    device: int
    inode: int
    boot_id: str
    path: str
    lock_inode: int = 0
    filesystem: str = ""

    def is_of(self, other: DirectoryIdentity) -> bool:
        """Return whether both describe the same directory, rather than one its copy.

        A copy of `controller.lock` has another inode. On an overlay file system, the directory's own inode changes
        whenever the kernel evicts it.
        """
        if self.filesystem.partition(".")[0] in _CHANGING_INODES and self.filesystem == other.filesystem:
            return self.path == other.path
        same_inode = self.lock_inode == other.lock_inode if self.lock_inode else self.inode == other.inode
        if not same_inode:
            return False
        if self.device == other.device or self.boot_id != other.boot_id:
            return True
        # A file system without its own disk gets another number at each mount.
        return os.major(self.device) == os.major(other.device) == 0 and self.path == other.path


def claim_directory(state: StateDir, *, adopt_copy: bool) -> bool:
    """Write the directory's identity, and detect a copy. The caller holds the lock.

    Args:
        adopt_copy: turn a copy into an independent directory, without the original's runners.

    Returns:
        Whether the directory was a copy, so that the runners in its database are not its own.

    Raises:
        Unavailable: it is a copy and `adopt_copy` is False, or the file cannot be read or written.
    """
    known = _read(state.root / _FILE)
    status = state.root.stat()
    current = DirectoryIdentity(
        directory_id=known.directory_id if known else str(uuid.uuid4()),
        device=status.st_dev,
        inode=status.st_ino,
        boot_id=boot_id(),
        path=str(state.root),
        lock_inode=(state.root / "controller.lock").stat().st_ino,
        filesystem=_filesystem(status.st_dev),
    )
    if known is None or known.is_of(current):
        _write(state, current)
        return False
    if not adopt_copy:
        raise Unavailable(
            f"the state directory {state.root} is a copy of {known.path}, whose runners a controller here would take "
            "over: start it once with --adopt-copy to make it a controller of its own (its queue and webhooks go on "
            "here too)"
        )
    # The copied directories contain the paths of the original's runners' sockets.
    shutil.rmtree(state.runners, ignore_errors=True)
    state.runners.mkdir(mode=0o700)
    _write(state, replace(current, directory_id=str(uuid.uuid4())))
    log.warning("the state directory was a copy of %s: the runners of the original are left alone", known.path)
    return True


def directory_id(state: StateDir) -> str:
    """Return the id of a claimed directory.

    Raises:
        Unavailable: it cannot be read.
    """
    known = _read(state.root / _FILE)
    if known is None:
        raise Unavailable(f"{state.root / _FILE} is gone: start the controller again")
    return known.directory_id


def _read(path: Path) -> DirectoryIdentity | None:
    try:
        return DirectoryIdentity(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise Unavailable(
            f"{path} is damaged, so nothing says whether {path.parent} is a copy: remove the file if it is none"
        ) from error


def _filesystem(device: int) -> str:
    """Return the type of a device number's file system. It is ext4 or fuse.sshfs, for example; empty if not found."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2] == number:
            return after.split(" ")[0]
    return ""


def _write(state: StateDir, identity: DirectoryIdentity) -> None:
    write_private(state.root / _FILE, json.dumps(asdict(identity)) + "\n")
