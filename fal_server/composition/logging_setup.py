"""The controller's own log. This is standard error, or a file of limited size with two older ones."""

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
    """A log file that becomes `.1` when it is full. The old `.1` becomes `.2`.

    Standard output and error of the process follow it, because Python and gRPC write there without `logging`.

    Args:
        path: the file; created if missing, readable by its owner alone.
        most_bytes: its largest size.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(path, maxBytes=most_bytes, backupCount=KEPT, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)


def write_error(message: str) -> None:
    """Write why the process ends to standard error."""
    sys.stderr.write(f"Error: {message}\n")


def set_up_logging(path: Path | None, *, debug: bool) -> None:
    """Log to a file, or to standard error if there is none."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=[logging.StreamHandler(sys.stderr) if path is None else OwnLogFile(path)],
    )
    # At INFO the HTTP clients log complete URLs, and a webhook's URL may contain a token.
    for library in ("alembic", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
