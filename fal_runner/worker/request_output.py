"""Marks output for the shim with its request, level and extent. The extent is that of one log entry.

It also delays a cancellation until its request has started.
It is part of the worker: only the standard library, Python 3.8. It covers output through `sys.stdout` and `sys.stderr`
(print, logging, warnings, tracebacks) in a request's own tasks, and in threads that its framework starts for it, in
every app that uvicorn serves. Output of the app's own threads, child processes and C code has no id.
"""

# ruff: noqa: ANN401, UP006, UP035, UP041, UP045

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import mmap
import os
import re
import select
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from typing import Any, Callable, Dict, Generator, List, Optional, Set, Tuple

_HEADER = b"x-fal-request-id"
_CANCELLATION = b"x-fal-cancellation"
# How long a cancellation waits for an app whose endpoints cannot be observed to start.
_LONGEST_WAIT_SECONDS = 20.0
_ID = re.compile(rb"[!-~]{1,128}")  # the form that the shim's FrameReader accepts
_PIPE_BUF = 4096  # the kernel does not split writes of at most this many bytes (pipe(7))
_FIXED = 21  # bytes of a frame's length, kind and time
_END = b"\x1f"

COUNT_NAME = "fal-requests"
COUNT_BYTES = 32
_GATES = {"port": 2, "metrics_port": 3}  # their places in it, as numbers of eight bytes
CURRENT: ContextVar[bytes] = ContextVar("fal_request_id", default=b"")
# The first letter of the level while a logger's record or a traceback is written, which is one entry.
_LEVEL: ContextVar[bytes] = ContextVar("fal_log_level", default=b"")
# The text for each stream while a traceback is printed in pieces.
_JOINED: ContextVar[Optional[Dict[Any, List[bytes]]]] = ContextVar("fal_joined_output", default=None)
# Used instead of the letter, for lines and for parts of a record that another part follows.
_LINES = b"-"


class RequestWriter(io.RawIOBase):
    """The binary side of a standard stream. It is unbuffered, and framed within a request.

    Args:
        fd: the stream's descriptor; stays open.
        mark: the start of every frame.
    """

    def __init__(self, fd: int, mark: str = "") -> None:
        super().__init__()
        self._fd = fd
        self._mark = mark.encode()
        self._within_line: Set[bytes] = set()
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)  # a thread that does not exist in the child may hold it

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may print in the middle of a print

    def set_mark(self, mark: str) -> None:
        """Set the start of every frame."""
        self._mark = mark.encode()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        # For code that writes to it directly, or passes it to a child.
        return self._fd

    def isatty(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        joined = _JOINED.get()
        if joined is not None:
            joined.setdefault(self, []).append(bytes(view))
            return len(view)
        ends = len(view) > 0 and view[-1] == 10
        self._write_framed(view, _LEVEL.get() if ends and self._mark else b"", ends)
        return len(view)

    def write_entry(self, text: str, letter: str) -> None:
        """Write a text that ends with a newline as one log entry. It is like a logger's record.

        It saves the cost of a record for code that writes a line for each request.

        Args:
            letter: the first letter of the level's name: T, D, I, W or E.
        """
        data = text.encode("utf-8", "backslashreplace")
        request_id = CURRENT.get()
        mark = self._mark
        if not mark or len(data) > _PIPE_BUF - len(mark) - _FIXED - len(request_id) - len(_END):
            self._write_framed(memoryview(data), mark and letter.encode(), True)
            return
        with self._lock:
            self._write(self._head(len(data), letter.encode(), request_id) + data)
        self._within_line.discard(request_id)

    def _write_framed(self, view: memoryview, level: bytes, ends: bool) -> None:
        if not self._mark:
            self._write(view)
            return
        request_id = CURRENT.get()
        room = _PIPE_BUF - len(self._mark) - _FIXED - len(request_id) - len(_END)
        with self._lock:  # the parts of one record must be contiguous
            for start in range(0, len(view), room):
                part = view[start : start + room]
                kind = (level if start + room >= len(view) else level.lower()) or _LINES
                self._write(b"".join((self._head(len(part), kind, request_id), part)))
        if len(view):
            (self._within_line.discard if ends else self._within_line.add)(request_id)

    def end(self, request_id: bytes) -> None:
        """End the request's output; an incomplete line is completed."""
        if request_id in self._within_line:
            self._within_line.discard(request_id)
            self._write(self._head(0, _LINES, request_id))

    def _head(self, length: int, kind: bytes, request_id: bytes) -> bytes:
        return b"%b%04x%b%016x%b\x1f" % (self._mark, length, kind, time.time_ns(), request_id)

    def _write(self, data: Any) -> None:
        size = len(data)
        done = 0
        while done < size:
            try:
                done += os.write(self._fd, data[done:] if done else data)
            except BlockingIOError:  # the app or a child has made the pipe non-blocking
                select.select([], [self._fd], [])


@contextlib.contextmanager
def one_entry(level: int) -> Generator[None, None, None]:
    """Make each text of the `with` block one log entry. A text counts up to its last newline.

    Args:
        level: a level number of the module logging.
    """
    letter = next(letter for least, letter in _LETTERS if level >= least)
    token = _LEVEL.set(letter)
    try:
        yield
    finally:
        _LEVEL.reset(token)


_LETTERS = (
    (logging.ERROR, b"E"),
    (logging.WARNING, b"W"),
    (logging.INFO, b"I"),
    (logging.DEBUG, b"D"),
    (-sys.maxsize, b"T"),
)


def tell_levels() -> None:
    """Make each logger's record one entry with its level. Each traceback that Python prints is one, too."""
    emit = logging.StreamHandler.emit

    @functools.wraps(emit)
    def emit_one(handler: Any, record: Any) -> None:
        with one_entry(record.levelno):
            emit(handler, record)

    logging.StreamHandler.emit = emit_one  # type: ignore[assignment, method-assign, unused-ignore]
    # print_exc and similar functions call the first.
    for module, name in ((traceback, "print_exception"), (sys, "excepthook"), (threading, "excepthook")):
        setattr(module, name, _joining(getattr(module, name)))


def _joining(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that prints a traceback as one entry. `plain` prints it in pieces."""

    @functools.wraps(plain)
    def print_one(*arguments: Any, **named: Any) -> Any:
        if _LEVEL.get():
            return plain(*arguments, **named)
        joined: Dict[RequestWriter, List[bytes]] = {}
        token = _JOINED.set(joined)
        try:
            return plain(*arguments, **named)
        finally:
            _JOINED.reset(token)
            with one_entry(logging.ERROR):
                for writer, parts in joined.items():
                    writer.write(b"".join(parts))

    return print_one


class RequestCount:
    """Counts the requests in progress, in memory that the shim reads.

    Args:
        fd: the shim's memory, with eight bytes each for: whether requests are counted, how many there are, and whether
            the app's port and that of its metrics have a gate. A second bit of the former says that the port is open on
            a trusted network, too.
    """

    def __init__(self, fd: int) -> None:
        self._numbers = memoryview(mmap.mmap(fd, COUNT_BYTES)).cast("Q")
        self._lock = threading.Lock()
        self._forked = False
        os.register_at_fork(after_in_child=self._note_fork)
        self._count = 0
        self._numbers[0], self._numbers[1] = 1, 0

    def add(self, number: int) -> None:
        if self._forked:  # the shim only wants the worker's own requests
            return
        with self._lock:
            self._count += number
            self._numbers[1] = self._count

    def note_gate(self, name: str) -> None:
        self._numbers[_GATES[name]] |= 1

    def note_network(self, opened: bool) -> None:
        self._numbers[_GATES["port"]] = 1 | opened << 1

    def _note_fork(self) -> None:
        self._forked = True


class RequestStreams:
    """Standard output and error, with frames for the shim."""

    def __init__(self) -> None:
        self._plain: List[Tuple[str, Any]] = []
        self._writers: List[RequestWriter] = []
        self._after_first: Optional[Callable[[], None]] = None
        self._count: Optional[RequestCount] = None
        self.beginnings = Beginnings()

    def install(self) -> None:
        """Replace `sys.stdout` and `sys.stderr`; a second call changes nothing."""
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
        """Frame the output of requests from now on.

        Args:
            mark: the start of every frame.
            after_first: called after the first request.
        """
        self._after_first = after_first
        for writer in self._writers:
            writer.set_mark(mark)
        tell_levels()

    def count_in(self, fd: int) -> None:
        """Count requests in the shim's memory. Do nothing if the descriptor is something else, as in a container."""
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{COUNT_NAME}"):  # noqa: PTH115
                self._count = RequestCount(fd)
        except (OSError, ValueError):
            self._count = None  # the shim then does not know how many there are

    def note_gate(self, name: str) -> bool:
        """Tell the shim that a port has a gate. Return False if that is not possible.

        Args:
            name: `port` or `metrics_port`.
        """
        if self._count is None:
            return False
        self._count.note_gate(name)
        return True

    def note_network(self, opened: bool) -> None:
        """Tell the shim whether the app's port is on a network. It has a gate."""
        if self._count is not None:
            self._count.note_network(opened)

    def one_entry(self, level: int) -> Any:
        """Make the output of the `with` block one log entry. See the function `one_entry`."""
        return one_entry(level)

    def enter(self) -> None:
        """Count a starting request."""
        if self._count is not None:
            self._count.add(1)

    def leave(self) -> None:
        """Uncount an ended request."""
        if self._count is not None:
            self._count.add(-1)

    def tag(self, config: Any) -> None:
        """Wrap every app that uvicorn loads from now on; `config` is uvicorn.config."""
        plain = config.Config.load

        @functools.wraps(plain)
        def load(itself: Any) -> None:
            plain(itself)
            itself.loaded_app = _Tagged(itself.loaded_app, self)

        config.Config.load = load

    def end(self, request_id: bytes) -> None:
        """End the output of a request."""
        for writer in self._writers:
            writer.end(request_id)
        after_first, self._after_first = self._after_first, None
        if after_first is not None:
            after_first()


class Beginnings:
    """Delays a request's cancellation until the app's endpoint has started on it.

    A cancellation has its own connection, and a busy app may read that one first. Its endpoint must find the state that
    the request's endpoint has left for it.
    """

    def __init__(self) -> None:
        # The received requests: whether an endpoint has started on each, or the event to set when one does.
        self._started: Dict[bytes, Any] = {}
        self._lock = threading.Lock()  # synchronous endpoints start in threads
        self._sees_endpoints = False

    def watch(self, routing: Any) -> None:
        """Observe when endpoints start; `routing` is fastapi.routing."""
        plain = getattr(routing, "run_endpoint_function", None)
        if plain is None:
            return
        self._sees_endpoints = True

        @functools.wraps(plain)
        def run(*, dependant: Any, **options: Any) -> Any:
            request_id = CURRENT.get()
            if self._started.get(request_id, True) is not True:
                # An asynchronous endpoint runs to its first pause before those who wait for the event do. Any other
                # starts in a thread, once one is free.
                if options.get("is_coroutine"):
                    self.start(request_id)
                else:
                    dependant = _Announcing(dependant, self, request_id)
            return plain(dependant=dependant, **options)

        routing.run_endpoint_function = run

    def enter(self, request_id: bytes) -> None:
        """Record a received request."""
        self._started.setdefault(request_id, False)

    def start(self, request_id: bytes) -> None:
        """Record that an endpoint has started on a request. Any thread may call it."""
        with self._lock:
            waited = self._started.get(request_id)
            if waited is None:
                return
            self._started[request_id] = True
        if waited not in (True, False):
            loop, event = waited
            loop.call_soon_threadsafe(event.set)

    def leave(self, request_id: bytes) -> None:
        """Drop an ended request; whoever waits for it continues."""
        waited = self._started.pop(request_id, True)
        if waited not in (True, False):
            waited[1].set()

    def receiving(self, receive: Any, request_id: bytes) -> Any:
        """Treat a request as started once the app has all of it. Do so only if its endpoints cannot be observed."""
        if self._sees_endpoints:
            return receive

        async def watched() -> Any:
            message = await receive()
            if not message.get("more_body"):
                self.start(request_id)
            return message

        return watched

    async def wait(self, request_id: bytes) -> None:
        """Wait until a request that was sent earlier has started."""
        with self._lock:
            waited = self._started.get(request_id, False)
            if waited is True:
                return
            if waited is False:
                waited = self._started[request_id] = (asyncio.get_running_loop(), asyncio.Event())
        try:
            await asyncio.wait_for(waited[1].wait(), _LONGEST_WAIT_SECONDS)  # noqa: TID251 - apps may have Python 3.8
        except asyncio.TimeoutError:
            if self._started.get(request_id) is waited:
                del self._started[request_id]


class _Announcing:
    """Wraps a dependant with a function in a thread. It reports that the function has started."""

    def __init__(self, dependant: Any, beginnings: Beginnings, request_id: bytes) -> None:
        self._dependant = dependant
        function = dependant.call

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            beginnings.start(request_id)
            return function(*arguments, **named)

        self.call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dependant, name)


class _Tagged:
    """An ASGI app that sets CURRENT for each request."""

    def __init__(self, app: Any, streams: RequestStreams) -> None:
        self._app = app
        self._streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id, is_cancellation = _named(scope)
        beginnings = self._streams.beginnings
        token = CURRENT.set(request_id)
        try:
            if request_id and is_cancellation:
                await beginnings.wait(request_id)
                await self._app(scope, receive, send)  # not a request of its own: it is not counted, and ends no output
                return
            self._streams.enter()
            try:
                if request_id:
                    beginnings.enter(request_id)
                    receive = beginnings.receiving(receive, request_id)
                await self._app(scope, receive, send)
            finally:
                self._streams.leave()
                if request_id:
                    beginnings.leave(request_id)
                    self._streams.end(request_id)
        finally:
            CURRENT.reset(token)


def _named(scope: Any) -> Tuple[bytes, bool]:
    """Return a request's id, and whether it is a cancellation. The id is b"" if it has no usable one."""
    request_id: Optional[bytes] = None
    is_cancellation = False
    for name, value in scope.get("headers") or ():
        if name == _HEADER:
            if request_id is None:
                request_id = bytes(value)
        elif name == _CANCELLATION:
            is_cancellation = True
    return (request_id if request_id and _ID.fullmatch(request_id) else b""), is_cancellation
