"""Inside the worker: what a request prints carries the request's id to the shim, and the text stays what it was.

Part of the worker, so the standard library alone and Python 3.8. Covered is what goes through `sys.stdout` and
`sys.stderr` (print, logging, warnings, tracebacks) in a request's own tasks, and in the threads that its framework
starts for it, under every app that uvicorn serves. What the app's own threads, child processes and C code print has no
id.
"""

# ruff: noqa: ANN401, UP006, UP035, UP045

from __future__ import annotations

import functools
import io
import os
import re
import select
import sys
from contextvars import ContextVar
from typing import Any, Callable, List, Optional, Set, Tuple

_HEADER = b"x-fal-request-id"
_ID = re.compile(rb"[!-~]{1,128}")  # what the shim's side of the frames takes
_PIPE_BUF = 4096  # the kernel keeps writes of at most so many bytes in one piece (pipe(7))
_END = b"\x1f"

CURRENT: ContextVar[bytes] = ContextVar("fal_request_id", default=b"")


class RequestWriter(io.RawIOBase):
    """The binary side of a standard stream, unbuffered: framed within a request, outside of one as it is.

    Args:
        fd: the stream's descriptor; stays open.
        mark: what frames begin with.
    """

    def __init__(self, fd: int, mark: str = "") -> None:
        super().__init__()
        self._fd = fd
        self._mark = mark.encode()
        self._within_line: Set[bytes] = set()

    def begin(self, mark: str) -> None:
        """From now on frames begin with this."""
        self._mark = mark.encode()

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """For who writes past it, or hands it to a child."""
        return self._fd

    def isatty(self) -> bool:
        """It is a pipe."""
        return False

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        request_id = CURRENT.get()
        if not request_id:
            self._write(view)
            return len(view)
        room = _PIPE_BUF - len(self._mark) - 4 - len(request_id) - len(_END)
        for start in range(0, len(view), room):
            part = view[start : start + room]
            self._write(b"".join((self._mark, b"%04x" % len(part), request_id, _END, part)))
        if len(view):
            (self._within_line.discard if view[-1] == 10 else self._within_line.add)(request_id)
        return len(view)

    def end(self, request_id: bytes) -> None:
        """The request prints no more: what it left without a newline is a line."""
        if request_id in self._within_line:
            self._within_line.discard(request_id)
            self._write(self._mark + b"0000" + request_id + _END)

    def _write(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # the app, or a program of its own, has set the pipe so
                select.select([], [self._fd], [])


class RequestStreams:
    """Standard output and error, framed as soon as there are requests."""

    def __init__(self) -> None:
        self._plain: List[Tuple[str, Any]] = []
        self._writers: List[RequestWriter] = []
        self._after_first: Optional[Callable[[], None]] = None

    def install(self) -> None:
        """From now on `sys.stdout` and `sys.stderr` know the request; a second time changes nothing."""
        if self._plain:
            return
        for name in ("stdout", "stderr"):
            plain = getattr(sys, name)
            plain.flush()
            writer = RequestWriter(plain.fileno())
            self._plain.append((name, plain))
            self._writers.append(writer)
            text = io.TextIOWrapper(
                writer,  # type: ignore[arg-type, type-var, unused-ignore]
                encoding=plain.encoding,
                errors=plain.errors,
                newline="\n",
                write_through=True,
            )
            setattr(sys, name, text)

    def begin(self, mark: str, after_first: Callable[[], None]) -> None:
        """There will be requests.

        Args:
            mark: what frames begin with.
            after_first: called when the first of them is over.
        """
        self._after_first = after_first
        for writer in self._writers:
            writer.begin(mark)

    def uninstall(self) -> None:
        """There will be no requests: the plain streams again."""
        for name, plain in self._plain:
            setattr(sys, name, plain)
        self._plain = []

    def tag(self, config: Any) -> None:
        """Have every app that uvicorn loads from now on tell its requests apart; `config` is uvicorn.config."""
        plain = config.Config.load

        @functools.wraps(plain)
        def load(itself: Any) -> None:
            plain(itself)
            itself.loaded_app = _Tagged(itself.loaded_app, self)

        config.Config.load = load

    def end(self, request_id: bytes) -> None:
        """The request is over."""
        for writer in self._writers:
            writer.end(request_id)
        after_first, self._after_first = self._after_first, None
        if after_first is not None:
            after_first()


class _Tagged:
    """An ASGI app whose requests are known while they run."""

    def __init__(self, app: Any, streams: RequestStreams) -> None:
        self._app = app
        self._streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request_id = _request_id(scope)
        if request_id is None:
            await self._app(scope, receive, send)
            return
        token = CURRENT.set(request_id)
        try:
            await self._app(scope, receive, send)
        finally:
            self._streams.end(request_id)
            CURRENT.reset(token)


def _request_id(scope: Any) -> Optional[bytes]:
    for name, value in scope.get("headers") or ():
        if name == _HEADER:
            return value if _ID.fullmatch(value) else None
    return None
