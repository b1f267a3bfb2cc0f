"""Serves an app in this process, for tests that need no controller."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fal.app import AppClient
from fal.app.server import STATE_VARIABLE, serve

if TYPE_CHECKING:
    import uvicorn

    from fal.app.app import App


@contextmanager
def serve_here(app: type[App], *, timeout: int | None = None) -> Generator[AppClient]:
    """Serve an app in a thread of this process for the time of the block, and give a client of its endpoints.

    What the test patches is what the app sees, and a debugger stops in it. The packages are those that are installed
    here, whatever the app's requirements say.

    Args:
        app: the app's class.
        timeout: seconds that each step of a call may take; None waits.

    Raises:
        Exception: what the app's setup() or, at the end of the block, its teardown() raised.

    Example:
        with serve_here(Greeter) as client:
            assert client.greet(Input(name="Ada")).text == "Hello, Ada!"
    """
    earlier = os.environ.get(STATE_VARIABLE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = _Serving(app, listening)
        try:
            serving.wait()
            port = listening.getsockname()[1]
            yield AppClient(app, f"http://127.0.0.1:{port}", timeout)
        finally:
            error = serving.stop()
            if earlier is None:
                os.environ.pop(STATE_VARIABLE, None)
            else:
                os.environ[STATE_VARIABLE] = earlier
        if error is not None:
            raise error


class _Serving:
    """The thread that serves."""

    def __init__(self, app: type[App], listening: socket.socket) -> None:
        self._app = app
        self._listening = listening
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fal-{app.__name__}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until setup() has ended and requests are answered.

        Raises:
            Exception: what setup() raised.
        """
        self._changed.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> BaseException | None:
        """Stop as a runner does, with handle_exit() and teardown(); return what the app raised."""
        if self._loop is not None and self._server is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.handle_exit, signal.SIGTERM, None)
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread of the test
            self._error = error
        finally:
            self._changed.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = self._app(_allow_init=True)
        watching = asyncio.create_task(self._watch())
        try:
            await serve(app, version=app.version, port=0, metrics_port=None, sock=self._listening, on_start=self._began)
        finally:
            watching.cancel()

    def _began(self, server: uvicorn.Server) -> None:
        self._server = server

    async def _watch(self) -> None:
        """Notice that requests are answered, which uvicorn tells nobody."""
        while True:
            if self._server is not None and self._server.started:
                self._changed.set()
                return
            await asyncio.sleep(0.005)
