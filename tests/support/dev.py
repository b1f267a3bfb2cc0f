"""`fal dev` in its own process, with its output."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.support.controller import BIN
from tests.support.ending import ends_with_us
from tests.support.waiting import until


class Dev:
    """Start `fal dev`, and read its lines as they arrive.

    Args:
        name: the name of its app.
        directory: its working directory.
        environment: its environment variables.
        arguments: its arguments.
    """

    def __init__(self, name: str, directory: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self._read = 0
        self.process = subprocess.Popen(
            [*ends_with_us(signal.SIGTERM), str(BIN / "fal"), "dev", *arguments],
            cwd=directory,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def until(self, text: str) -> str:
        """Wait for the next line with a text; return it."""
        return self.until_match(f".*{re.escape(text)}.*")

    def until_match(self, pattern: str) -> str:
        """Wait for the next line that matches a pattern; return it."""

        def look() -> str | None:
            for place in range(self._read, len(self.lines)):
                if re.fullmatch(pattern, self.lines[place]):
                    self._read = place + 1
                    return self.lines[place]
            if self.process.poll() is not None:
                raise AssertionError(f"fal dev ended without {pattern!r}:\n" + "\n".join(self.lines))
            return None

        return until(look, pattern, 120)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; return the exit code after reading all output."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(60)
        return code
