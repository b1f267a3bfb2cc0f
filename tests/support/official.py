"""The published `fal` command and packages, against our controller. They have their own environment.

Nothing of them is imported here: each use is a process that imports them itself, as for a user.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.support.controller import BIN
from tests.support.preloaded import Preloaded

CONFIG = "check_updates = false\n"
"""What the official client's configuration says: ask no registry for news."""
_HANG_SECONDS = 240
COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(text: str) -> str:
    """Remove the colors that the official client prints even into a pipe."""
    return COLORS.sub("", text)


@dataclass(frozen=True, kw_only=True)
class Official:
    """The official client, pointed at one controller."""

    python: Path
    home: Path
    host: str
    key: str = field(repr=False)
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Return its environment: its own home, times in UTC, plaintext to loopback."""
        fal_home = self.home / ".fal"
        fal_home.mkdir(parents=True, exist_ok=True)
        config = fal_home / "config.toml"
        if not config.exists():
            config.write_text(CONFIG)
        return {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "FAL_HOME_DIR": str(fal_home),
            "FAL_CONFIG_PATH": str(config),
            "FAL_DONT_OPEN_LINKS": "1",
            "FAL_GRPC_HOST": self.host,
            "FAL_REST_HOST": self.host,
            "FAL_RUN_HOST": self.host,
            "FAL_QUEUE_RUN_HOST": f"{self.host}/queue",
            "FAL_KEY": self.key,
            "ISOLATE_TEST_MODE": "1",
            "TZ": "UTC",
            "COLUMNS": "250",
            "LANG": "C.UTF-8",
            **self.extra,
        }

    def run(
        self, *command: str | Path, stdin: bytes | None = b"", check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the official environment. The timeout only guards against hanging."""
        done = subprocess.run(
            [self.python.parent / command[0], *command[1:]],
            env=self.environment,
            input=stdin,
            cwd=cwd or self.home,
            capture_output=True,
            check=False,
            timeout=_HANG_SECONDS,
        )
        return _checked(command, done, check=check)

    def fal(
        self, *arguments: str | Path, stdin: bytes | None = b"", check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the official `fal` command; the timeout only guards against hanging."""
        if self.python.parent == BIN:  # ours, which imports little
            return self.run("fal", *arguments, stdin=stdin, check=check, cwd=cwd)
        script = self.python.parent / "fal"
        done = _preloaded(self.python, script).run(
            [str(argument) for argument in arguments],
            env=self.environment,
            cwd=cwd or self.home,
            stdin=stdin or b"",
            timeout=_HANG_SECONDS,
        )
        return _checked([script, *arguments], done, check=check)

    def json(self, *arguments: str | Path, cwd: Path | None = None) -> Any:
        """Run the official `fal` command. Return the JSON in the last line of its output."""
        return json.loads(self.fal(*arguments, "--json", cwd=cwd).stdout.strip().splitlines()[-1])

    def script(self, source: str, *arguments: str) -> Any:
        """Run Python with the official packages. Return its last line, read as JSON."""
        return json.loads(self.run("python", "-c", source, *arguments).stdout.strip().splitlines()[-1])

    def terminal(self, *arguments: str, cwd: Path | None = None) -> Terminal:
        """Start the official `fal` command on its own terminal."""
        return Terminal([str(self.python.parent / "fal"), *arguments], self.environment, cwd or self.home)


@cache
def _preloaded(python: Path, script: Path) -> Preloaded:
    """Return the published command, ready for its runs in this test process."""
    return Preloaded(python, script, ("fal", "isolate"), {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})


def _checked(
    command: Sequence[str | Path], done: subprocess.CompletedProcess[bytes], *, check: bool
) -> subprocess.CompletedProcess[str]:
    result = subprocess.CompletedProcess(
        command,
        done.returncode,
        plain(done.stdout.decode(errors="replace")),
        plain(done.stderr.decode(errors="replace")),
    )
    if check and result.returncode != 0:
        raise AssertionError(f"{command} exited {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def _as_a_terminal_does() -> None:
    """Give the new process its own terminal, and let Ctrl-C end it. A background job would ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program on a pseudo-terminal of 30 rows and 100 columns."""

    def __init__(self, command: list[str], environment: Mapping[str, str], cwd: Path) -> None:
        self._terminal, program = pty.openpty()
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm"},
            cwd=cwd,
            stdin=program,
            stdout=program,
            stderr=program,
            start_new_session=True,
            preexec_fn=_as_a_terminal_does,
        )
        os.close(program)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Type some keys."""
        os.write(self._terminal, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Read its screen until a pattern appears. The timeout only guards against hanging."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, plain(self.seen))):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {pattern!r} within {seconds:g} s on the screen:\n{self.seen}"
            assert self._read(), f"it ended without {pattern!r} on the screen:\n{self.seen}"
        return found

    def wait(self, seconds: float = 120) -> int:
        """Read to its end; return the exit code. The timeout only guards against hanging."""
        end = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"it did not end within {seconds:g} s; on the screen:\n{self.seen}"
            if not self._read():
                return self.process.wait(60)

    def _read(self) -> bool:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux raises this if the other side of the terminal is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)
