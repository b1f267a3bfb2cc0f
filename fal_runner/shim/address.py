"""The address of a shim, however deep its directory. The file shim.json records it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

SOCKET_NAME = "shim.sock"
EXEC_SOCKET_NAME = "exec.sock"
LOG_NAME = "shim.log"
TOKEN_METADATA = "shim-token"  # noqa: S105
_IDENTITY_NAME = "shim.json"
_MAX_PATH_BYTES = 100  # the kernel accepts 107
_PLAIN = re.compile(r"[\w/. +=@~-]*", re.ASCII)  # gRPC parses a path as a part of a URI, and a comma as the end of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimIdentity:
    """A shim's record of itself, so that a later controller finds it.

    Attributes:
        pid, started_ticks, boot_id: identify its process.
        tag: in the environment of all the runner's processes; not the token.
        address: the path of its socket.
    """

    pid: int
    started_ticks: int
    boot_id: str
    tag: str
    address: str

    def write(self, directory: Path) -> None:
        """Replace the file atomically."""
        path = directory / _IDENTITY_NAME
        draft = path.with_suffix(".new")
        written = {
            "pid": self.pid,
            "started_ticks": self.started_ticks,
            "boot_id": self.boot_id,
            "mark": self.tag,  # the name in the file, which other versions read
            "address": self.address,
        }
        draft.write_text(json.dumps(written))
        draft.replace(path)

    @classmethod
    def read(cls, directory: Path) -> ShimIdentity | None:
        """Read the record of this runner's shim. None if it is missing or damaged."""
        try:
            found = json.loads((directory / _IDENTITY_NAME).read_text())
            return cls(
                pid=found["pid"],
                started_ticks=found["started_ticks"],
                boot_id=found["boot_id"],
                tag=found["mark"],
                address=found["address"],
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None


class SocketPath:
    """A path to a unix socket for the kernel and gRPC. They accept it as long as this is open.

    A path that is too long, or has a character that may be special to gRPC, is reached through the open directory:
    /proc/self/fd/N/NAME.
    """

    def __init__(self, path: Path) -> None:
        self._directory: int | None = None
        if len(os.fsencode(path)) <= _MAX_PATH_BYTES and _PLAIN.fullmatch(str(path)):
            self.path = str(path)
        else:
            self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._directory}/{path.name}"

    @property
    def target(self) -> str:
        """The path in gRPC's form."""
        return f"unix:{self.path}"

    def close(self) -> None:
        """Release the path."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
