"""Shows what the SDK reports while it goes on, such as that the controller was lost and is there again."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from fal_cli.presentation.output import print_note


class _Notes(logging.Handler):
    """Write log records as notes to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


@contextmanager
def notes_on_stderr() -> Generator[None]:
    """Write the SDK's reports to standard error until the block ends."""
    logger, handler = logging.getLogger("fal.api"), _Notes()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
