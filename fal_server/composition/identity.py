"""The identity of a state directory: tells the directory itself from a copy, whose runners are somebody else's."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fal_server.composition.state import StateDir, boot_id, write_private
from fal_server.core.faults import Unavailable

log = logging.getLogger(__name__)
_FILE = "directory.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryIdentity:
    """What `directory.json` says.

    Attributes:
        directory_id: stays with the directory when it is renamed.
        device, inode: of the directory; a copy has others. Device numbers may change at a boot.
        path: where the directory was when it was last started, for messages.
    """

    directory_id: str
    device: int
    inode: int
    boot_id: str
    path: str

    def is_of(self, other: DirectoryIdentity) -> bool:
        """Return whether both describe the same directory and not one its copy."""
        same_device = self.device == other.device or self.boot_id != other.boot_id
        return self.inode == other.inode and same_device


def claim_directory(state: StateDir, *, adopt_copy: bool) -> bool:
    """Write the directory's identity, and recognise a copy. The caller holds the lock.

    Args:
        adopt_copy: make a copy a directory of its own, without its original's runners.

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
    # The copied directories name the sockets of the original's runners.
    shutil.rmtree(state.runners, ignore_errors=True)
    state.runners.mkdir(mode=0o700)
    _write(state, replace(current, directory_id=str(uuid.uuid4())))
    log.warning("the state directory was a copy of %s: the runners of the original are left alone", known.path)
    return True


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


def _write(state: StateDir, identity: DirectoryIdentity) -> None:
    write_private(state.root / _FILE, json.dumps(asdict(identity)) + "\n")
