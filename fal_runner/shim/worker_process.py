"""A worker's process as the shim holds it, and the pipes between the two: started for a job, or before there is one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fal_runner.process.descriptors import read_some, write_all
from fal_runner.process.subreaper import Child, Subreaper

MAX_RESULT_BYTES = 512 * 1024 * 1024
_WORKER = str(Path(__file__).parent.with_name("worker") / "worker.py")
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMessage:
    """Something that a worker told.

    Attributes:
        head: what it is.
        body: the bytes of a result; fewer than the head promises where they were cut off.
    """

    head: dict[str, object]
    body: bytes = b""

    @property
    def whole(self) -> bool:
        """Whether all of it came."""
        return len(self.body) == self.head.get("length", 0)


class WorkerProcess:
    """A process of worker.py, and this side of its pipes.

    Args:
        reaper: who starts processes here.
        python: the interpreter of the app's environment.
        env: all of its environment.
        directory: where it runs.
        imports_file: what it is to import before it has a job; None has it wait for the job at once.

    Attributes:
        stdout, stderr: the pipes of its output; whoever reads them closes them.

    Raises:
        OSError: its process could not be made.
        ValueError: an environment variable's name or value is none.
    """

    def __init__(
        self, reaper: Subreaper, python: str, env: Mapping[str, str], directory: str, imports_file: str | None = None
    ) -> None:
        job_read, self._job = os.pipe()
        self._told, told_write = os.pipe()
        self.stdout, out_write = os.pipe()
        self.stderr, err_write = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        self._received = bytearray()
        command = [python, _WORKER, str(job_read), str(told_write)]
        try:
            self.child: Child = reaper.spawn(
                command if imports_file is None else [*command, imports_file],
                env=env,
                directory=directory,
                stdin=null,
                stdout=out_write,
                stderr=err_write,
                pass_fds=(job_read, told_write),
            )
        except (OSError, ValueError):
            for fd in (self._job, self._told, self.stdout, self.stderr):
                os.close(fd)
            raise
        finally:
            for fd in (job_read, told_write, out_write, err_write, null):
                os.close(fd)
        os.set_blocking(self._job, False)
        os.set_blocking(self._told, False)

    async def ask(self, message: Mapping[str, object], *, last: bool) -> None:
        """Send a line, and close the pipe after the last one. Nothing where the worker has died: its exit tells."""
        try:
            await write_all(self._job, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return
        finally:
            if last:
                os.close(self._job)

    async def listen(self) -> WorkerMessage | None:
        """What it tells next; None at the end. An end within a line is one."""
        while (end := self._received.find(b"\n")) < 0:
            if not await self._read():
                return None
        head: dict[str, object] = json.loads(self._received[:end])
        length = head.get("length", 0)
        assert isinstance(length, int)
        while len(self._received) - end - 1 < min(length, MAX_RESULT_BYTES) and await self._read():
            pass
        body = bytes(self._received[end + 1 : end + 1 + length])
        del self._received[: end + 1 + length]
        return WorkerMessage(head=head, body=body)

    def hang_up(self) -> None:
        """It will be listened to no more."""
        os.close(self._told)

    async def discard(self) -> None:
        """Kill it; it has had no job."""
        self.child.signal(signal.SIGKILL)
        for fd in (self._job, self._told, self.stdout, self.stderr):
            os.close(fd)
        await self.child.wait()

    async def _read(self) -> bool:
        data = await read_some(self._told, _READ_BYTES)
        self._received += data
        return bool(data)
