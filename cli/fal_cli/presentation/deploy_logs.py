"""Shows the lines of builds, deploys and runs on standard error, as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fal_cli.presentation.printable import log_text
from fal_cli.presentation.style import paint, wants_colour

if TYPE_CHECKING:
    from fal_grpc.adapter.log import Log

_STYLES = {"WARNING": "yellow", "ERROR": "red", "BUILDER": "dim"}
_QUIET = frozenset({"TRACE", "DEBUG"})


def show_logs(logs: Iterable[Log], *, building: bool = False) -> None:
    """Write log lines.

    Args:
        logs: the lines; what is finer than INFO is left out.
        building: whether lines of the build are shown; once it is done they are left out, as they were shown before.
    """
    colour = wants_colour(sys.stderr)
    terminal = sys.stderr.isatty()
    for log in logs:
        source, level = log.source.value, log.level.value
        if level in _QUIET or (source == "BUILDER" and not building):
            continue
        message = log_text(log.message, colour=colour) if terminal else log.message
        style = _STYLES.get(level) or _STYLES.get(source)
        sys.stderr.write((paint(message, style, colour=colour) if style else message) + "\n")
    sys.stderr.flush()
