"""Starting and reaping processes in the shim, which is the parent of every orphan of its runner."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fal_runner.process.proc import ProcessInfo, all_processes, descendants, send_signal

_PR_SET_CHILD_SUBREAPER = 36
_WALL = 0x40000000  # waitpid also for children whose end sends another signal than SIGCHLD
_LAUNCH = str(Path(__file__).with_name("launch.py"))


class Child:
    """A process that the shim started; leader of a session of its own.

    Attributes:
        exited: its exit code, or minus the number of the signal that ended it. To be awaited by `wait` alone, since
            cancelling who awaits a future cancels the future.
    """

    def __init__(self, process: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> None:
        self._process = process
        self.pid = process.pid
        self.exited = exited

    def ended(self, code: int) -> None:
        """Called by the reaper, once."""
        self._process.returncode = code  # else Popen would wait for a pid that is not its own any more
        self.exited.set_result(code)

    async def wait(self) -> int:
        """Wait for its end; returns what `exited` holds then."""
        return await asyncio.shield(self.exited)

    def signal(self, number: int) -> None:
        """Signal the process itself; nothing where it was reaped."""
        if not self.exited.done():
            os.kill(self.pid, number)


class Subreaper:
    """Starts processes and reaps every descendant; there is one in a shim, and all of it runs in its event loop."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._something_ended = asyncio.Event()

    def install(self) -> None:
        """Become the subreaper: orphans of the runner are handed to this process, however they detached themselves."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot become a subreaper")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: str,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program in a session of its own that dies with the shim.

        Args:
            env: all of its environment.
            stdin, stdout, stderr: file descriptors; they stay open here.
            tty: whether stdin becomes its controlling terminal.
            pass_fds: further descriptors that it gets under the same numbers.

        Raises:
            OSError: there is no room for one more process.
            ValueError: an environment variable's name or value is none.
        """
        mode = "tty" if tty else "pipes"
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), mode, directory, *command],
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        child = Child(process, asyncio.get_running_loop().create_future())
        self._children[process.pid] = child  # in the same step of the loop: SIGCHLD cannot come between
        return child

    def living_descendants(self) -> list[ProcessInfo]:
        """All living descendants of the shim: all that the runner has."""
        return [seen for seen in descendants([os.getpid()], all_processes()) if seen.alive]

    async def sweep(self) -> None:
        """Kill every descendant; returns when the kernel says that there are none, not even zombies."""
        while True:
            self._something_ended.clear()
            if not self._reap():
                return
            for seen in self.living_descendants():
                send_signal(seen)
            try:
                await asyncio.wait_for(self._something_ended.wait(), 0.05)
            except TimeoutError:
                continue  # look again: what was forked meanwhile is killed in the next round

    def _reap(self) -> bool:
        """Take in all that ended; returns whether there are children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | _WALL)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._something_ended.set()
            child = self._children.pop(pid, None)
            if child is not None:
                child.ended(os.waitstatus_to_exitcode(status))
