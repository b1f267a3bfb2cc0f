"""The page with a shell in a runner, and the WebSocket that carries its terminal.

Binary messages hold what is typed and what the shell writes. Text messages hold JSON: the page sends the terminal's
size, and gets the exit code or what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing, suppress
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side, State

from fal_server.core.faults import Fault, InvalidArgument
from fal_server.core.identity import Principal
from fal_server.core.json_reader import read_json
from fal_server.http.dashboard.pages import Pages
from fal_server.http.routes.guard import Guard
from fal_server.http.server.asgi import EXCHANGE, REQUEST_ID
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.registry import Registry
from fal_server.http.server.websocket import accept_websocket
from fal_server.ports import ExecRequest, ExecSession, TerminalSize
from fal_server.services.runners import Runners

_log = logging.getLogger(__name__)
_MOST_MESSAGE_BYTES = 64 * 1024
_MOST_WAITING = 64
_MOST_CELLS = 1000


class ShellPage:
    """A shell in each runner, for keys that may run commands there."""

    def __init__(self, pages: Pages, guard: Guard, runners: Runners) -> None:
        self._pages = pages
        self._runners = runners
        place = "/ui/runners/{runner_id}/shell"
        self.routes = [guard.route("GET", place, self._show), guard.route("GET", f"{place}/socket", self._open)]

    async def _show(self, request: Request, caller: Principal) -> Response:
        view = await self._runners.get(caller.scope, request.path_params["runner_id"])
        return self._pages.show(request, "shell.html", runner=view.runner)

    async def _open(self, request: Request, caller: Principal) -> Response:
        exchange: Exchange = request.scope["state"][EXCHANGE]
        if not exchange.upgrade:
            raise InvalidArgument("upgrade", "this address takes WebSockets: open the shell's page")
        size = _size(request.query_params.get("columns"), request.query_params.get("rows"))
        session = await self._runners.exec(
            caller.scope, request.path_params["runner_id"], ExecRequest(command=(), tty=True, size=size)
        )
        return _ShellResponse(exchange, request.scope["state"][REQUEST_ID], session)


class _ShellResponse(Response):
    """A response that becomes a WebSocket, and lasts as long as the shell."""

    def __init__(self, exchange: Exchange, request_id: str, session: ExecSession) -> None:
        super().__init__()
        self._exchange = exchange
        self._id = request_id
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._session
        try:
            if self._exchange.gone:
                return
            socket = ShellSocket(self._exchange)
            accept_websocket(self._exchange, self._id, socket)
            writing = asyncio.create_task(_output(session, socket))
            reading = asyncio.create_task(_input(session, socket))
            leaving = asyncio.create_task(socket.gone.wait())
            try:
                await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for work in (writing, reading, leaving):
                    work.cancel()
                await asyncio.gather(writing, reading, leaving, return_exceptions=True)
                socket.close()
        finally:
            await session.close()


async def _output(session: ExecSession, socket: ShellSocket) -> None:
    try:
        async with aclosing(session.output()) as output:  # type: ignore[type-var]  # it is a generator
            async for part in output:
                if part.data:
                    await socket.write(part.data)
                if part.exit_code is not None:
                    socket.tell({"exit": part.exit_code})
                    return
        socket.tell({"error": "the link to the runner broke: how the shell ended is not known"})
    except Fault as fault:
        socket.tell({"error": fault.message})


async def _input(session: ExecSession, socket: ShellSocket) -> None:
    with suppress(Fault):  # a shell that no longer reads, or has ended, still has an exit code
        while True:
            match await socket.read():
                case TerminalSize() as size:
                    await session.resize(size)
                case bytes() as data:
                    await session.write(data)


class ShellSocket(asyncio.Protocol):
    """The WebSocket of one terminal.

    Attributes:
        gone: set when the connection has ended.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._registry: Registry = exchange.connection.registry
        self._admitted_by = (exchange.key_id, exchange.membership)
        self._socket = WebSocket(Side.SERVER, state=State.OPEN, max_size=_MOST_MESSAGE_BYTES, logger=_log)
        self._parts: list[bytes] = []
        self._waiting: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()

    async def read(self) -> bytes | TerminalSize:
        """Return what was typed next, or the terminal's new size."""
        found = await self._waiting.get()
        if self._waiting.qsize() < _MOST_WAITING and not self._transport.is_closing():
            self._transport.resume_reading()
        return found

    async def write(self, data: bytes) -> None:
        """Send output; wait while the page takes none."""
        self._socket.send_binary(data)
        self._flush()
        await self._writable.wait()

    def tell(self, message: dict[str, object]) -> None:
        """Send a message about the shell."""
        if self._socket.state is State.OPEN:
            self._socket.send_text(json.dumps(message).encode())
            self._flush()

    def close(self) -> None:
        """Close the connection after what was sent."""
        if self._socket.state is State.OPEN and not self._transport.is_closing():
            self._socket.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._transport.close()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._flush()
        if self._waiting.qsize() >= _MOST_WAITING and not self._transport.is_closing():
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._socket.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._writable.set()
        self.gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Called by the listener.

    def drain(self) -> None:
        self.tell({"error": "the controller is stopping"})
        self.close()

    def abort(self) -> None:
        self._transport.abort()

    def end_calls(self, name: str) -> None:
        if name in self._admitted_by:
            self._transport.abort()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT and frame.fin:
            size = _size_of(bytes(frame.data))
            if size is not None:
                self._waiting.put_nowait(size)
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT):  # the parser answers pings and closes
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._waiting.put_nowait(b"".join(self._parts))
                self._parts.clear()

    def _flush(self) -> None:
        """Write the parser's output; an empty part means that it wants to close."""
        for data in self._socket.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def _size_of(message: bytes) -> TerminalSize | None:
    try:
        found = read_json(message)
    except ValueError:
        return None
    match found:
        case {"columns": int(columns), "rows": int(rows)}:
            return _size(str(columns), str(rows))
        case _:
            return None


def _size(columns: str | None, rows: str | None) -> TerminalSize:
    """Return a terminal's size within its bounds; the usual one for anything that is no number."""
    usual = TerminalSize()
    width, height = (
        min(max(int(text), 1), _MOST_CELLS) if text is not None and text.isdecimal() else other
        for text, other in ((columns, usual.width), (rows, usual.height))
    )
    return TerminalSize(width=width, height=height)
