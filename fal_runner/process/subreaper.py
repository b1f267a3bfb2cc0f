"""Starts and reaps processes in the shim. The shim is the parent of every orphan of its runner."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fal_runner.isolation.sandbox import VARIABLES_VARIABLE
from fal_runner.process.proc import ProcessInfo, all_processes, children_of, descendants, send_signal
from fal_runner.worker.process_tag import TAG_VARIABLE

_PR_SET_CHILD_SUBREAPER = 36
_WALL = 0x40000000  # waitpid also reports children whose end sends another signal than SIGCHLD
_LAUNCH = str(Path(__file__).with_name("launch.py"))
# launch.py unblocks signals after it has restored the default actions. Until then the child has the shim's actions,
# which ignore some signals, so that a signal to a starting command would be lost.
_HELD_WHILE_STARTING = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


class Child:
    """A process that the shim started; the leader of its own session.

    Attributes:
        exited: its exit code, or minus the number of the signal that ended it. Await it only through `wait`: cancelling
            a task that awaits a future cancels the future.
    """

    def __init__(self, process: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> None:
        self._process = process
        self.pid = process.pid
        self.exited = exited

    def ended(self, code: int) -> None:
        """Record its end; the subreaper calls this once."""
        self._process.returncode = code  # otherwise Popen would wait for a pid that may have been reused by then
        self.exited.set_result(code)

    async def wait(self) -> int:
        """Wait for its end; return the value of `exited`."""
        return await asyncio.shield(self.exited)

    def signal(self, number: int) -> None:
        """Signal the process itself; do nothing once it was reaped."""
        if not self.exited.done():
            os.kill(self.pid, number)


class Subreaper:
    """Starts processes and reaps every descendant. A shim has one, and uses it only in its event loop."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._something_ended = asyncio.Event()

    def install(self) -> None:
        """Become the subreaper. The runner's orphans then become children of this process."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot become a subreaper")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        place: Mapping[str, str],
        directory: str,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program in its own session that dies with the shim.

        A signal that arrives before the program runs waits for it.

        Args:
            env: its complete environment.
            place: the variables of launch.py, which select its view of the machine.
            stdin, stdout, stderr: file descriptors; they stay open here.
            tty: whether stdin becomes its controlling terminal.
            pass_fds: further descriptors that it gets under the same numbers.

        Raises:
            OSError: there is no room for one more process.
            ValueError: the name or value of an environment variable is not valid.
        """
        mode = "tty" if tty else "pipes"
        variables = _written(env)
        tag = {TAG_VARIABLE: env[TAG_VARIABLE]} if TAG_VARIABLE in env else {}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_WHILE_STARTING)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), mode, directory, *command],
                env={"LANG": "C.UTF-8", **tag, **place, VARIABLES_VARIABLE: str(variables)},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(*pass_fds, variables),
            )
        finally:
            os.close(variables)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child = Child(process, asyncio.get_running_loop().create_future())
        # in the same step of the event loop, so that SIGCHLD cannot be handled in between
        self._children[process.pid] = child
        return child

    def living_descendants(self) -> list[ProcessInfo]:
        """List all living processes of the runner."""
        return [process for process in descendants([os.getpid()], all_processes()) if process.alive]

    async def sweep(self) -> None:
        """Kill every descendant; return once the kernel reports none, not even zombies."""
        while True:
            self._something_ended.clear()
            if not self._reap():
                return
            with suppress(OSError):  # without a free descriptor none is found, and the next round looks again
                for process in self.living_descendants():
                    send_signal(process)
            try:
                async with asyncio.timeout(0.05):
                    await self._something_ended.wait()
            except TimeoutError:
                continue  # the next round kills processes that were forked meanwhile

    def program_of(self, child: Child) -> int:
        """Return the process id of a child's program. This is its own, or the one in the sandbox that it stands for."""
        own = (process for process in children_of(child.pid) if process.alive)
        return next((process.pid for process in own if process.session == process.pid), child.pid)

    def kill_program(self, child: Child) -> None:
        """Send SIGKILL to the sandboxed program of a child. Send it to the child if there is no program yet.

        A program that is already ending keeps its exit code, which the child passes on; SIGKILL to the child would lose
        it.
        """
        own = [found for found in children_of(child.pid) if found.session == found.pid]
        if own and not child.exited.done():
            for program in own:
                send_signal(program)
        else:
            child.signal(signal.SIGKILL)

    def _reap(self) -> bool:
        """Reap all ended children; return whether there are any left."""
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


def _written(variables: Mapping[str, str]) -> int:
    """Return a descriptor from which launch.py reads a program's variables.

    They may be the app's, and launch.py, which still has every privilege, must not run with them.

    Raises:
        ValueError: a name or a value is not valid.
    """
    entries: list[bytes] = []
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError("illegal environment variable name" if "\0" not in name + value else "embedded null byte")
        entries.append(os.fsencode(name) + b"=" + os.fsencode(value) + b"\0")
    descriptor = os.memfd_create("variables")
    content = memoryview(b"".join(entries))
    while content:
        content = content[os.write(descriptor, content) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
