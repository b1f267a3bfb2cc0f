"""The page with a shell in a runner. A WebSocket carries its terminal.

Binary messages hold what is typed and what the shell writes. Text messages hold JSON: the page sends the terminal's
size, and gets the exit code or what went wrong.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode
from websockets.protocol import State

from fal_server.core.faults import Fault, InvalidArgument
from fal_server.core.identity import Principal
from fal_server.core.json_reader import read_json
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.http.server.asgi import EXCHANGE, REQUEST_ID
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.websocket import WebSocketProtocol
from fal_server.ports import ExecRequest, ExecSession, TerminalSize

_MOST_MESSAGE_BYTES = 64 * 1024
_MOST_WAITING = 64
_MOST_CELLS = 1000
_PLACE = "/ui/runners/{runner_id}/shell"
routes = Routes()


@routes.page(_PLACE)
async def _show(ui: Ui, request: Request, caller: Principal) -> Response:
    view = await ui.runners.get(caller.scope, request.path_params["runner_id"])
    return ui.pages.show(request, "shell.html", runner=view.runner)


@routes.page(f"{_PLACE}/socket")
async def _open(ui: Ui, request: Request, caller: Principal) -> Response:
    exchange: Exchange = request.scope["state"][EXCHANGE]
    if not exchange.upgrade:
        raise InvalidArgument("upgrade", "this address takes WebSockets: open the shell's page")
    size = _size(request.query_params.get("columns"), request.query_params.get("rows"))
    command = ExecRequest(command=(), tty=True, size=size)
    session = await ui.runners.exec(caller.scope, request.path_params["runner_id"], command)
    ended: asyncio.Event = getattr(request.state, "session_ended", None) or asyncio.Event()
    return _ShellResponse(exchange, request.scope["state"][REQUEST_ID], session, ended)


class _ShellResponse(Response):
    """A response that becomes a WebSocket. It lasts as long as the shell."""

    def __init__(self, exchange: Exchange, request_id: str, session: ExecSession, ended: asyncio.Event) -> None:
        super().__init__()
        self._exchange = exchange
        self._id = request_id
        self._session = session
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._session
        try:
            if self._exchange.gone:
                return
            socket = ShellSocket(self._exchange)
            socket.accept(self._id)
            writing = asyncio.create_task(_output(session, socket))
            reading = asyncio.create_task(_input(session, socket))
            leaving = asyncio.create_task(socket.gone.wait())
            ending = asyncio.create_task(self._ended.wait())
            try:
                await asyncio.wait((writing, leaving, ending), return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    socket.tell({"error": "this browser has logged out, or its session has ended"})
            finally:
                for work in (writing, reading, leaving, ending):
                    work.cancel()
                await asyncio.gather(writing, reading, leaving, ending, return_exceptions=True)
                socket.close(CloseCode.NORMAL_CLOSURE)
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


class ShellSocket(WebSocketProtocol):
    """The WebSocket of one terminal."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, most_bytes=_MOST_MESSAGE_BYTES, admitted_by=(exchange.key_id, exchange.membership))
        self._waiting: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()

    async def read(self) -> bytes | TerminalSize:
        """Return what was typed next, or the terminal's new size."""
        found = await self._waiting.get()
        if self._waiting.qsize() < _MOST_WAITING and not self.transport.is_closing():
            self.transport.resume_reading()
        return found

    async def write(self, data: bytes) -> None:
        """Send output; wait while the page takes none."""
        self.socket.send_binary(data)
        self.flush()
        await self.writable.wait()

    def tell(self, message: dict[str, object]) -> None:
        """Send a message about the shell."""
        if self.socket.state is State.OPEN:
            self.socket.send_text(json.dumps(message).encode())
            self.flush()

    def take(self, data: bytes, *, text: bool) -> None:
        typed = _size_of(data) if text else data
        if typed is not None:
            self._waiting.put_nowait(typed)

    def read_on(self) -> None:
        if self._waiting.qsize() >= _MOST_WAITING and not self.transport.is_closing():
            self.transport.pause_reading()

    def drain(self) -> None:
        self.tell({"error": "the controller is stopping"})
        self.close(CloseCode.NORMAL_CLOSURE)


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
    """Return a terminal's size within its bounds. Anything that is no number becomes the usual one."""
    usual = TerminalSize()
    width, height = (
        min(max(int(text), 1), _MOST_CELLS) if text is not None and text.isdecimal() else other
        for text, other in ((columns, usual.width), (rows, usual.height))
    )
    return TerminalSize(width=width, height=height)
