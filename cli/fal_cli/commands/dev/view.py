"""The output of `fal dev`. The app's lines are on standard output, and the state of each edit is on standard error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.presentation.output import fitted
from fal_cli.presentation.printable import log_text, visible
from fal_cli.presentation.style import paint, wants_color

if TYPE_CHECKING:
    from fal.api import LogEntry
    from fal.deploy import DeploymentResult

_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "red"}
_MOST_NAMES = 3
# Startup messages of the runner's server: they show its own address, which is behind the public one.
_SERVER_LINES = re.compile(
    r"(INFO:\s+)?(Started server process|Waiting for (application|background)|Application (startup|shutdown)"
    r"|Uvicorn running on|Shutting down$|Finished server process)"
)


class View:
    """Writes events in the order in which they happen."""

    def serving(self, result: DeploymentResult, seconds: float, watched: int) -> None:
        """Print the app's address, and how to call it."""
        from fal_cli.presentation.addresses import addresses

        self.good(f"{result.app_name} is ready after {seconds:.2f} s")
        lines = [f"  {label:<11} {text}" for label, text in addresses(result)]
        sys.stderr.write(visible("\n".join(lines)) + "\n")
        self.beside(f"Watching {watched} {'file' if watched == 1 else 'files'}. Ctrl-C ends it.")

    def edited(self, paths: Sequence[Path]) -> None:
        """Print the names of the edited files."""
        names = ", ".join(_shown(path) for path in paths[:_MOST_NAMES])
        self.beside(f"{names}{' and others' if len(paths) > _MOST_NAMES else ''} edited")

    def good(self, text: str) -> None:
        """Print that an edit is served."""
        self._write(text, "green")

    def beside(self, text: str) -> None:
        """Print a side remark."""
        self._write(text, "dim")

    def error(self, text: str, *, served: bool) -> None:
        """Print why an edit is not served."""
        self._write(f"Error: {text}", "red")
        self.beside("The previous version keeps serving." if served else "Nothing is served until the next edit.")

    def line(self, entry: LogEntry) -> None:
        """Print a line of the app, or a warning of the platform."""
        level = entry.level.value
        if entry.source.value == "build" or (entry.source.value == "system" and level not in _LEVEL_STYLES):
            return
        if _SERVER_LINES.match(entry.message):
            return
        color = wants_color(sys.stdout)
        message = log_text(entry.message, color=color) if sys.stdout.isatty() else entry.message
        style = _LEVEL_STYLES.get(level)
        if message or entry.source.value != "system":
            sys.stdout.write((paint(message, style, color=color) if style else message) + "\n")
            sys.stdout.flush()

    def left(self, name: str, why: str) -> None:
        """Print that an app could not be removed."""
        self._write(f"Error: {name} may still be there: {why}", "red")
        self.beside(f"`fal apps delete {name}` removes it.")

    def _write(self, text: str, style: str) -> None:
        color = wants_color(sys.stderr)
        time = paint(datetime.now().astimezone().strftime("%H:%M:%S"), "dim", color=color)
        body = fitted(f"00:00:00 {visible(text)}", sys.stderr).partition(" ")[2]
        first, newline, rest = body.partition("\n")
        sys.stderr.write(f"{time} {paint(first, style, color=color)}{newline}{rest}\n")
        sys.stderr.flush()


def _shown(path: Path) -> str:
    """Return a path as a user would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
