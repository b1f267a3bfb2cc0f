"""The gateway's side of a connection to a runner, and the connections that are kept for the next request."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

import httptools

from fal_server.http.server.messages import Headers

# uvicorn, what most apps run on, closes after 5 idle seconds: keep a connection for less, so that it is not closed
# at the very moment of its next request.
_IDLE_SECONDS = 4.0
_ESTABLISHED = 1  # TCP_ESTABLISHED in the kernel's tcp_states.h
_MAX_HEAD_BYTES = 256 * 1024
_NO_BODY_END = (b"content-length", b"transfer-encoding")


class ResponseListener(Protocol):
    """Who sent the request that a connection is answering."""

    def on_answer(self) -> None:
        """A head, a part of the body or the end of the answer has come."""
        ...

    def on_broken(self, detail: str) -> None:
        """The connection ended before the answer did."""
        ...

    def on_runner_slow(self) -> None:
        """The runner reads slower than it is sent to: hold back."""
        ...

    def on_runner_ready(self) -> None:
        """The runner has caught up."""
        ...


class Upstream(asyncio.Protocol):
    """A connection to a runner; serves one request at a time.

    Attributes:
        asker: whose request is under way; None while the connection is idle.
        status, phrase, headers: the answer's head, once `head` is set.
        complete: whether the whole answer is here.
        switched: whether the runner answered 101; what came after its head is in the body, raw.
        reused: whether it served a request before.
        answered: whether any byte of the present answer has come.
    """

    __slots__ = (
        "_body",
        "_bodyless",
        "_eof_ends",
        "_head_bytes",
        "_parser",
        "_pool",
        "_reusable",
        "_socket",
        "answered",
        "asker",
        "complete",
        "head",
        "headers",
        "idle_since",
        "key",
        "lost",
        "phrase",
        "reused",
        "status",
        "switched",
        "transport",
    )

    def __init__(self, pool: Pool, key: str, sock: socket.socket) -> None:
        self._pool = pool
        self._socket = sock
        self.key = key
        self._parser = httptools.HttpResponseParser(self)
        self.asker: ResponseListener | None = None
        self.reused = False
        self.lost = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.phrase = b""
        self.headers: Headers = []
        self.head = self.complete = self.switched = self.answered = False
        self._body: list[bytes] = []
        self._bodyless = self._eof_ends = False
        self._reusable = True
        self._head_bytes = 0

    def ask(self, asker: ResponseListener, *, bodyless: bool) -> None:
        """Take the connection for a request, which is then written to `transport`.

        Args:
            bodyless: the answer has no body whatever its head says (HEAD).
        """
        self._reset()
        self.asker = asker
        self._bodyless = bodyless

    def alive(self) -> bool:
        """Whether the runner has not closed it, also where the event loop has not been told yet."""
        if self.lost or self.transport.is_closing():
            return False
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def take(self) -> bytes:
        """The part of the body that is here."""
        body = self._body
        if not body:
            return b""
        self._body = []
        return body[0] if len(body) == 1 else b"".join(body)

    def done(self, *, reusable: bool) -> None:
        """The request is over: keep the connection, or close it."""
        self.asker = None
        if reusable and self.complete and self._reusable and not self.lost and not self.transport.is_closing():
            self.reused = True
            self._pool.put(self)
        else:
            self.transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse, then tell the asker once."""
        asker = self.asker
        if asker is None:
            self.transport.abort()  # an answer to nothing
            return
        self.answered = True
        if self.switched:
            self._body.append(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if rest := data[upgrade.args[0] :]:
                self._body.append(rest)
        except httptools.HttpParserError as error:
            if not self.complete:
                asker.on_broken(f"the runner's answer is not HTTP/1.1: {error}")
                return
            self._reusable = False
        if not self.head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                asker.on_broken(f"the head of the runner's answer is larger than {_MAX_HEAD_BYTES} bytes")
            return
        asker.on_answer()

    def eof_received(self) -> bool | None:
        """The end of an answer without a length is the connection's."""
        if self._eof_ends and self.head and not self.complete:
            self.complete = True
            self._reusable = False
            if self.asker is not None:
                self.asker.on_answer()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the asker, or the pool."""
        self.lost = True
        asker = self.asker
        if asker is not None:
            if not self.complete:
                asker.on_broken("the runner closed the connection" if exc is None else f"the connection broke: {exc}")
        else:
            self._pool.forget(self)

    def pause_writing(self) -> None:
        """The runner reads slowly."""
        if self.asker is not None:
            self.asker.on_runner_slow()

    def resume_writing(self) -> None:
        """The runner has caught up."""
        if self.asker is not None:
            self.asker.on_runner_ready()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False

    def on_status(self, status: bytes) -> None:
        if not self.head:
            self.phrase += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                self.switched = self.head = self.complete = True
                self.status = status
            return
        self.head = True
        self.status = status
        self._reusable = self._parser.should_keep_alive()
        if self._bodyless:
            self.complete = True
            self._reusable = False  # the parser waits for a body that will not come
        elif not self._reusable and status not in (204, 304):
            self._eof_ends = not any(name in _NO_BODY_END for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if not self._bodyless and not self.complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.head:
            self.complete = True
        else:  # 100 Continue and the like: the answer is yet to come
            self.headers = []
            self.phrase = b""


class Pool:
    """Idle connections by runner; the one that was used last goes first."""

    __slots__ = ("_idle", "_loop", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, list[Upstream]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def get(self, key: str) -> Upstream | None:
        """An idle connection that is still open, or None."""
        idle = self._idle.get(key)
        while idle:
            upstream = idle.pop()
            if upstream.alive():
                return upstream
            upstream.transport.abort()
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep for the next request."""
        upstream.idle_since = self._loop.time()
        self._idle.setdefault(upstream.key, []).append(upstream)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)

    def forget(self, upstream: Upstream) -> None:
        """An idle connection was closed."""
        idle = self._idle.get(upstream.key)
        if idle is not None and upstream in idle:
            idle.remove(upstream)

    async def connect(self, key: str, host: str, port: int) -> Upstream:
        """A new connection.

        Raises:
            OSError: it is refused, or the address cannot be reached.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Made here, because `Upstream.alive` asks the kernel about it, and uvloop hides its own.
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, (host, port))
            _, upstream = await self._loop.create_connection(lambda: Upstream(self, key, sock), sock=sock)
        except BaseException:
            sock.close()
            raise
        return upstream

    def close(self) -> None:
        """Close all idle connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle, self._idle = self._idle, {}
        for upstreams in idle.values():
            for upstream in upstreams:
                upstream.transport.abort()

    def _sweep(self) -> None:
        """Close what is idle for too long, the oldest of which stand first."""
        self._timer = None
        oldest = self._loop.time() - _IDLE_SECONDS
        for key, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).transport.abort()
            if not idle:
                del self._idle[key]
        if self._idle:
            self._timer = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)
