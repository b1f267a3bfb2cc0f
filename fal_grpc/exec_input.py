"""Writes the input of a command across broken links, from threads.

It is not generated from its asyncio twin: here gRPC pulls messages in its own thread while others add input, which
needs a lock and a number for each stream; there one task writes. Their shared decisions are in `execs.InputBuffer`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fal_grpc.adapter import execs, shell
from fal_grpc.calls import Calls

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1 import exec_pb2


class ExecInput:
    """The input of a command, taken from the caller. It is sent on one stream after another.

    Attributes:
        error: the exception of the caller's input; the session raises it when it is read.
    """

    def __init__(self, calls: Calls, info: execs.ExecInfo, *, on_failure: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._calls = calls
        self._info = info
        self._on_failure = on_failure
        self._buffer = execs.InputBuffer()
        self._changed = threading.Condition()
        self._stopped = False
        self._stream = 0
        self._writing: grpc.Future | None = None  # type: ignore[type-arg]

    def feed(self, stdin: bytes | str | Iterable[bytes] | None) -> None:
        """Start taking the complete input from the caller. Nobody needs to read the output yet."""
        threading.Thread(target=self._feed, args=(stdin,), name="fal-exec-input", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Add input. Wait while the runner does not read; after `stop`, do nothing."""
        for start in range(0, len(data), execs.CHUNK_BYTES):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._buffer.full)
                if self._stopped:
                    return
                self._buffer.add(data[start : start + execs.CHUNK_BYTES])
                self._changed.notify_all()

    def end(self) -> None:
        """Mark the end of the input."""
        with self._changed:
            self._buffer.ended = True
            self._changed.notify_all()

    def resume_at(self, offset: int) -> None:
        """Continue at the offset that an earlier session reached."""
        with self._changed:
            self._buffer.resume_at(offset)

    def taken(self, offset: int) -> None:
        """Record the offset up to which the runner has taken the input."""
        with self._changed:
            if self._buffer.taken(offset):  # waking a thread for nothing is expensive
                self._changed.notify_all()

    def acknowledge(self, offset: int) -> None:
        """Tell the runner the offset up to which the output was received."""
        with self._changed:
            self._buffer.received = offset
            self._changed.notify_all()

    def restart(self) -> None:
        """Send on a new stream. It starts with the first byte that the runner has not taken."""
        if self._stopped:
            return
        if self._writing is not None:
            self._writing.cancel()
        with self._changed:
            self._stream += 1
            stream, sending = self._stream, self._buffer.sending()
            self._changed.notify_all()
        self._writing = self._calls.upload(self._calls.execs.WriteExec, self._messages(stream, sending))

    def stop(self) -> None:
        """Stop sending."""
        with self._changed:
            self._stopped = True
            self._stream += 1
            self._changed.notify_all()
        if self._writing is not None:
            self._writing.cancel()

    def _messages(self, stream: int, sending: execs.Sending) -> Iterator[exec_pb2.WriteExecRequest]:
        first = True
        while True:
            with self._changed:
                message = sending.next()
                while message is None:
                    if self._stream != stream:
                        return
                    self._changed.wait()
                    message = sending.next()
                if self._stream != stream:
                    return
            if first:
                message.runner_id, message.exec_id, first = self._info.runner_id, self._info.exec_id, False
            yield message

    def _feed(self, stdin: bytes | str | Iterable[bytes] | None) -> None:
        try:
            for item in shell.inputs(stdin):
                if isinstance(item, bytes):
                    self.send(item)
            self.end()
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises
            self.error = error
            self._on_failure()
