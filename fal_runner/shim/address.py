"""Where a shim listens and how it is found again: the socket's address, however deep its directory, and shim.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

SOCKET_NAME = "shim.sock"
EXEC_SOCKET_NAME = "exec.sock"
LOG_NAME = "shim.log"
TOKEN_METADATA = "shim-token"  # noqa: S105
_IDENTITY_NAME = "shim.json"
_MAX_PATH_BYTES = 100  # the kernel takes 107
_SPECIAL = frozenset("?#%")  # gRPC reads a path as part of a URI


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimIdentity:
    """What a shim writes down about itself.

    Attributes:
        pid, started_ticks, boot_id: which process it is.
        mark: the word in the environment of all that is the runner's; not the token.
        address: the path of its socket.
    """

    pid: int
    started_ticks: int
    boot_id: str
    mark: str
    address: str

    def write(self, directory: Path) -> None:
        """Replace what is there, whole or not at all."""
        path = directory / _IDENTITY_NAME
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def read(cls, directory: Path) -> ShimIdentity | None:
        """What is written in a runner's directory; None where nothing is, or nothing that makes sense."""
        try:
            return cls(**json.loads((directory / _IDENTITY_NAME).read_text()))
        except (OSError, ValueError, TypeError):
            return None


class SocketPath:
    """A path to a unix socket that the kernel and gRPC take, for as long as this is open.

    A path that is too long, or has a character that is special in a URI, is reached through the open directory:
    /proc/self/fd/N/NAME.
    """

    def __init__(self, path: Path) -> None:
        self._directory: int | None = None
        if len(os.fsencode(path)) <= _MAX_PATH_BYTES and not _SPECIAL & set(str(path)):
            self.path = str(path)
        else:
            self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._directory}/{path.name}"

    @property
    def target(self) -> str:
        """The same as gRPC spells it."""
        return f"unix:{self.path}"

    def close(self) -> None:
        """The path is not needed any more."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
