"""Shows the SDK's progress reports. One says that the controller was lost and is back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

from fal_cli.presentation.output import print_note


class _Notes(logging.Handler):
    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


@contextmanager
def notes(show: Callable[[str], object]) -> Generator[None]:
    """Show the SDK's reports until the block ends."""
    logger, handler = logging.getLogger("fal.api"), _Notes(show)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def notes_on_stderr() -> AbstractContextManager[None]:
    """Write the SDK's reports to standard error until the block ends."""
    return notes(print_note)
