"""Writes the input of a shell session from threads.

It is not generated from its asyncio twin: gRPC's blocking calls pull messages from an iterator in gRPC's own thread,
its asyncio calls are written to. Their shared code (cutting input, the end) is in `adapter/shell.py`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fal_grpc.adapter import shell
from fal_grpc.calls import Calls

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1 import runner_pb2

_MAX_PENDING = 16


class ShellInput:
    """The call of a shell session, and its pending input.

    Only a few inputs wait at a time, so that the caller notices a runner that does not read.

    Attributes:
        call: the call; iterate over it for the output.
        error: the exception of the caller's input; the session raises it when it is read.
    """

    def __init__(
        self,
        calls: Calls,
        method: grpc.StreamStreamMultiCallable[runner_pb2.ShellRunnerInput, runner_pb2.ShellRunnerOutput],
        first: runner_pb2.ShellRunnerInput,
        *,
        stdin: bytes | str | Iterable[bytes] | None,
        interactive: bool,
        timeout_seconds: float | None,
    ) -> None:
        self.error: BaseException | None = None
        self._tty = first.tty
        self._pending: deque[shell.ShellInput] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        items = self._put_items() if interactive else shell.inputs(stdin)
        with calls.translated(method):
            self.call = calls.session(method, self._messages(first, items), timeout_seconds=timeout_seconds)

    def put(self, item: shell.ShellInput) -> None:
        """Send one input. After the end of the input or of the call, it does nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._pending) < _MAX_PENDING)
            if not self._stopped:
                self._pending.append(item)
                self._changed.notify_all()

    def stop(self) -> None:
        """Cancel the call, and stop sending."""
        with self._changed:
            self._stopped = True
            self._pending.clear()
            self._changed.notify_all()
        self.call.cancel()

    def _put_items(self) -> Iterator[shell.ShellInput]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._pending)
                if self._stopped:
                    return
                item = self._pending.popleft()
                self._changed.notify_all()
            yield item

    def _messages(
        self, first: runner_pb2.ShellRunnerInput, items: Iterator[shell.ShellInput]
    ) -> Iterator[runner_pb2.ShellRunnerInput]:
        # gRPC reads this in its own thread, where an error would be lost.
        yield first
        try:
            for item in items:
                yield from shell.messages(item, tty=self._tty)
                if isinstance(item, shell.CloseInput):
                    return
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises
            self.error = error
            self.call.cancel()
