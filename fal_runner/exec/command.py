"""A process that runs beside a worker with a terminal or pipes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fal_runner.isolation.container import NOTE_VARIABLE, engine_environment, exec_command, read_note
from fal_runner.process.descriptors import write_all
from fal_runner.process.ports import PORTS_VARIABLE
from fal_runner.process.proc import ProcessInfo, has_variable, send_signal
from fal_runner.process.subreaper import Child, Subreaper

SESSION_VARIABLE = "FAL_RUNNER_SESSION"
STDOUT = 1
STDERR = 2
_PIPE_BYTES = 1024 * 1024
_HANGUP_SECONDS = 2.0
_END_OF_FILE = b"\x04"
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """Describes a command to run.

    Attributes:
        command: the program and its arguments; empty means a login shell.
        tty: whether it gets a terminal.
        size: rows and columns of the terminal; 0 means the default.
        directory: the runner's working directory.
        env: the environment of the runner's processes.
        place: selects its view of the machine; see Subreaper.spawn.
        terminals: the /dev that provides its terminal.
        cwd: where it starts instead of `directory`.
        more: its own variables.
        name: distinguishes it from the runner's other processes, and appears in a shell's prompt.
    """

    command: Sequence[str]
    tty: bool
    size: tuple[int, int]
    directory: str
    env: Mapping[str, str] = field(repr=False)
    place: Mapping[str, str]
    terminals: str = "/dev"
    cwd: str = ""
    more: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])
    name: str


class Command:
    """A running or ended command.

    Attributes:
        outputs: (descriptor, stream) of its outputs; the descriptors do not block. Empty once closed.

    Raises:
        OSError: there is no room for one more process.
        ValueError: the command or an environment variable is not valid.
    """

    def __init__(self, reaper: Subreaper, spec: CommandSpec) -> None:
        self._reaper = reaper
        self._name = spec.name
        self.tty = spec.tty
        variables = {**spec.env, **spec.more, SESSION_VARIABLE: spec.name}
        directory = spec.cwd or spec.directory
        if spec.tty:
            variables.setdefault("TERM", "xterm-256color")
        if NOTE_VARIABLE in variables:
            note = read_note(Path(variables[NOTE_VARIABLE]))
            # An image that runs itself has its own network, with its own port numbers.
            ours = [SESSION_VARIABLE] if note["itself"] else [SESSION_VARIABLE, PORTS_VARIABLE]
            names = [*ours, *note["names"], *spec.more, *(["TERM"] if spec.tty else [])]
            command = exec_command(note, spec.command, names, tty=spec.tty, directory=spec.cwd)
            variables = engine_environment(note, variables, names)
            directory = spec.directory
        else:
            command = list(spec.command) or _shell(variables, spec.name)
        self.stdin, self.outputs, theirs = open_terminal(spec.size, spec.terminals) if spec.tty else open_pipes()
        try:
            self.child: Child = reaper.spawn(
                command,
                env=variables,
                place={} if NOTE_VARIABLE in spec.env else spec.place,
                directory=directory,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                tty=spec.tty,
            )
        except (OSError, ValueError):
            self.close()
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)

    @property
    def exited(self) -> bool:
        """Whether its own process has ended."""
        return self.child.exited.done()

    async def write(self, data: bytes) -> None:
        """Send input, and wait while the command does not read. What it can no longer read is dropped, as by a pipe."""
        if self.stdin is None:
            return
        try:
            await write_all(self.stdin, data)
        except OSError:
            self.close_input()

    async def end_input(self) -> None:
        """Close its input; on a terminal, type the end-of-file character."""
        if self.tty:
            await self.write(_END_OF_FILE)
        else:
            self.close_input()

    def close_input(self) -> None:
        """Close its input pipe; a terminal stays open for its output."""
        if self.stdin is not None and not self.tty:
            os.close(self.stdin)
        self.stdin = None

    def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, in character cells."""
        if self.tty and self.outputs:
            _set_size(self.outputs[0][0], (height, width))

    def send_signal(self, number: int) -> None:
        """Send a signal to its terminal's foreground job. Without one, send it to its process group."""
        if self.exited or not self.outputs or not 0 < number < signal.NSIG:
            return
        with contextlib.suppress(OSError):  # a terminal may have no foreground job, and a group may just have ended
            group = os.tcgetpgrp(self.outputs[0][0]) if self.tty else 0
            os.killpg(group or self._reaper.program_of(self.child), number)

    async def end(self, first: int = signal.SIGHUP) -> None:
        """Send a signal to all of its processes. Those left after 2 s get SIGKILL."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HANGUP_SECONDS
        for process in self._members():
            send_signal(process, first)
            send_signal(process, signal.SIGCONT)  # a stopped one would not see it
        while members := self._members():
            if loop.time() >= deadline:
                for process in members:
                    send_signal(process)
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Close this side of its pipes or terminal."""
        fds = {fd for fd, _ in self.outputs} | ({self.stdin} if self.stdin is not None else set())
        for fd in fds:
            os.close(fd)
        self.outputs, self.stdin = [], None

    def _members(self) -> list[ProcessInfo]:
        """Return its living processes. It finds them by session, or by a variable if they left it."""
        sessions = {self.child.pid, self._reaper.program_of(self.child)}
        return [
            process
            for process in self._reaper.living_descendants()
            if process.session in sessions or has_variable(process.pid, SESSION_VARIABLE, self._name)
        ]


_Ends: TypeAlias = tuple[int | None, list[tuple[int, int]], tuple[int, int, int]]


def open_terminal(size: tuple[int, int], devices: str = "/dev") -> _Ends:
    """Open a terminal in the given /dev. Programs that see this /dev find its name."""
    ours = os.open(f"{devices}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(ours, _TIOCSPTLCK, struct.pack("i", 0))
        theirs = fcntl.ioctl(ours, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(ours)
        raise
    os.set_blocking(ours, False)
    _set_size(ours, size)
    return ours, [(ours, STDOUT)], (theirs, theirs, theirs)


def open_pipes() -> _Ends:
    stdin_read, stdin_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    for fd in (stdin_write, out_read, err_read):
        os.set_blocking(fd, False)
    with contextlib.suppress(OSError):  # the system may not grant more, which is only slower
        fcntl.fcntl(out_read, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return stdin_write, [(out_read, STDOUT), (err_read, STDERR)], (stdin_read, out_write, err_write)


def _set_size(fd: int, size: tuple[int, int]) -> None:
    height, width = max(1, min(size[0] or 24, 0xFFFF)), max(1, min(size[1] or 80, 0xFFFF))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _shell(variables: dict[str, str], name: str) -> list[str]:
    """Return a shell without the user's profiles, which would set another PATH. Its prompt names the runner."""
    app = variables.get("FAL_APP_NAME", "")
    where = f"{app} {variables.get('FAL_RUNNER_ID', name)[:8]}".strip()
    bash = shutil.which("bash", path=variables.get("PATH"))
    if bash is not None:
        variables["PS1"] = rf"[{where}] \w \$ "
        return [bash, "--noprofile", "--norc"]
    variables["PS1"] = f"[{where}] $ "
    return ["sh"]
