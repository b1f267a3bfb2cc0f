"""A reader's shell: bash on a terminal. The tests' environment is not on its PATH."""

from __future__ import annotations

import base64
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

from tests.support.controller import ROOT

_COLUMNS = 120
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OURS = re.compile(r"(FAL|ISOLATE|PYTHON|PYTEST|VIRTUAL_ENV|COVERAGE|COV_)")
# Commands come through descriptor 3, so that their standard input is the terminal.
_LOOP = r"""
status=0
while IFS= read -r line <&3; do
  command=$(base64 -d <<<"$line")
  (exit "$status")
  eval "$command"
  status=$?
  printf '\0%s\0' "$status"
done
"""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Shell:
    """A bash that runs commands one after the other.

    Args:
        home: its home directory.
        variables: added to the machine's environment variables.
    """

    def __init__(self, home: Path, variables: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
        kept.setdefault("UV_CACHE_DIR", str(ROOT / ".cache" / "uv"))
        terminal = {"HOME": str(home), "PATH": _PATH, "TERM": "xterm", "NO_COLOR": "1", "LANG": "C.UTF-8"}
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
        reading, self._commands = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-c", f"exec 3<&{reading} {reading}<&-{_LOOP}"],
            cwd=ROOT,
            env={**kept, **terminal, **(variables or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            pass_fds=(reading,),
            start_new_session=True,
        )
        os.close(reading)
        os.close(theirs)

    def run(self, command: str) -> tuple[str, int]:
        """Run a command. Return the terminal's output, as plain lines, and the exit code."""
        os.write(self._commands, base64.b64encode(command.encode()) + b"\n")
        shown = b""
        while not (end := re.search(rb"\0(\d+)\0$", shown)):
            shown += os.read(self._terminal, 65536)
        text = _ESCAPE.sub("", shown[: end.start()].decode(errors="replace")).replace("\r\n", "\n")
        # A redrawn line shows its last state.
        return "\n".join(line.rpartition("\r")[2].rstrip() for line in text.split("\n")), int(end[1])

    def close(self) -> None:
        """End it."""
        os.close(self._commands)
        self._process.wait()
        os.close(self._terminal)
