"""The controller's own log: standard error, or a file of bounded size, with the two before it."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

MOST_BYTES = 10 * 1024 * 1024
KEPT = 2


class OwnLogFile(RotatingFileHandler):
    """A file that is put aside as `.1` when it is full, and what was `.1` as `.2`.

    The process's standard output and error, which have what Python and gRPC say past `logging`, go with it.

    Args:
        path: the file; made where it is missing, readable by its owner alone.
        most_bytes: how large it grows.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(path, maxBytes=most_bytes, backupCount=KEPT, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)


def log_to(path: Path | None, *, debug: bool) -> None:
    """Begin to log, to a file or, without one, to standard error."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=[logging.StreamHandler(sys.stderr) if path is None else OwnLogFile(path)],
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
