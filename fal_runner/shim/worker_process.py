"""A worker's process, started with or without a job, and its pipes. The pipes connect it to the shim."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fal_runner.isolation.sandbox import SANDBOX_DIRECTORY_VARIABLE, SANDBOX_VARIABLE
from fal_runner.process.descriptors import read_some, write_all
from fal_runner.process.subreaper import Child, Subreaper
from fal_runner.worker.prewarm import ImportList
from fal_runner.worker.request_output import COUNT_BYTES, COUNT_NAME

MAX_RESULT_BYTES = 512 * 1024 * 1024
_WORKER = str(Path(__file__).parent.with_name("worker") / "worker.py")
_READ_BYTES = 256 * 1024
_LONGEST_MODULE = 256


def place_of(sandbox: str, directory: Path) -> dict[str, str]:
    """Return variables that select a worker's view of the machine in launch.py.

    Args:
        sandbox: as in RunnerSpec.
        directory: contains its private files.
    """
    return {SANDBOX_VARIABLE: sandbox, SANDBOX_DIRECTORY_VARIABLE: str(directory)} if sandbox else {}


def note_imports(message: WorkerMessage, python: str, imports_file: str) -> bool:
    """Record a worker's message about its imports. Return False for any other message."""
    if not {"imported", "until"} & message.head.keys():
        return False
    if imports_file:
        listed = ImportList(imports_file, python)
        match message.head:
            case {"imported": list(names)}:
                listed.add(name for name in names if _is_module(name))
            case {"until": str(name)}:
                listed.stop_before(name)
            case _:
                pass
    return True


def _is_module(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_MODULE


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMessage:
    """A message from a worker.

    Attributes:
        head: its kind and fields.
        body: the bytes of a result; fewer than the head says if they were cut off.
    """

    head: dict[str, object]
    body: bytes = b""

    @property
    def whole(self) -> bool:
        return len(self.body) == self.head.get("length", 0)


class WorkerProcess:
    """A process of worker.py, and this side of its pipes.

    Args:
        reaper: starts processes.
        python: the interpreter of the app's environment.
        env: its complete environment.
        place: selects its view of the machine; see `place_of`.
        directory: its working directory.
        imports_file: lists the modules to import before there is a job; None makes it wait for the job at once.

    Attributes:
        stdout, stderr: the pipes of its output; their reader closes them.

    Raises:
        OSError: there is no room for one more process.
        ValueError: the name or value of an environment variable is not valid.
    """

    def __init__(
        self,
        reaper: Subreaper,
        python: str,
        env: Mapping[str, str],
        place: Mapping[str, str],
        directory: str,
        imports_file: str | None = None,
    ) -> None:
        job_read, self._job = os.pipe()
        self._messages, message_write = os.pipe()
        self.stdout, out_write = os.pipe()
        self.stderr, err_write = os.pipe()
        self._answers_read, self._answers = os.pipe()
        self._requests = os.memfd_create(COUNT_NAME)
        os.ftruncate(self._requests, COUNT_BYTES)
        null = os.open(os.devnull, os.O_RDONLY)
        self._received = bytearray()
        command = [python, _WORKER, str(job_read), str(message_write)]
        try:
            self.child: Child = reaper.spawn(
                command if imports_file is None else [*command, imports_file],
                env=env,
                place=place,
                directory=directory,
                stdin=null,
                stdout=out_write,
                stderr=err_write,
                pass_fds=(job_read, message_write, self._answers_read, self._requests),
            )
        except (OSError, ValueError):
            for fd in (self._job, self._messages, self.stdout, self.stderr, self._answers, self._requests):
                os.close(fd)
            raise
        finally:
            for fd in (job_read, message_write, out_write, err_write, self._answers_read, null):
                os.close(fd)
        os.set_blocking(self._job, False)
        os.set_blocking(self._messages, False)
        os.set_blocking(self._answers, False)

    @property
    def requests_fd(self) -> int:
        """The descriptor of the memory in which the worker counts its requests. The worker has the same number."""
        return self._requests

    @property
    def answers_fd(self) -> int:
        """The worker's descriptor for reading answers to its questions."""
        return self._answers_read

    def answer(self, *, yes: bool) -> None:
        """Answer the worker's question; a worker that reads no answers gets none."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._answers, b"y" if yes else b"n")

    @property
    def requests_in_flight(self) -> int | None:
        """How many requests the worker is processing. None if it does not count them."""
        counts, count = struct.unpack("<QQ", os.pread(self._requests, 16, 0))
        return count if counts else None

    @property
    def gated(self) -> bool:
        """Whether the worker guards the app's port with a gate. It reports that before it listens there."""
        return os.pread(self._requests, 8, 16) != bytes(8)

    @property
    def gates_metrics(self) -> bool:
        """Whether the metrics port has a gate. The worker reports that before it listens there, too."""
        return os.pread(self._requests, 8, 24) != bytes(8)

    @property
    def on_network(self) -> bool:
        """Whether the app's port is open on a trusted network, too. The worker reports that at the same time."""
        return bool(struct.unpack("<Q", os.pread(self._requests, 8, 16))[0] & 2)

    async def ask(self, message: Mapping[str, object], *, last: bool) -> None:
        """Send a line, and close the pipe after the last one. Do nothing if the worker has died."""
        try:
            await write_all(self._job, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return
        finally:
            if last:
                os.close(self._job)

    async def listen(self) -> WorkerMessage | None:
        """Wait for its next message. Return None at the end, even within a line."""
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
        """Stop reading its messages, and answering."""
        os.close(self._messages)
        os.close(self._answers)

    async def discard(self) -> None:
        """Kill a process that never got a job."""
        self.child.signal(signal.SIGKILL)
        for fd in (self._job, self._messages, self.stdout, self.stderr, self._answers, self._requests):
            os.close(fd)
        await self.child.wait()

    async def _read(self) -> bool:
        data = await read_some(self._messages, _READ_BYTES)
        self._received += data
        return bool(data)
