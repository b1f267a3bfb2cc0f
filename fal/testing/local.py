"""Serves an app in this process, without a controller."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fal.app.server import STATE_VARIABLE, serve

if TYPE_CHECKING:
    import uvicorn

    from fal.app.app import App


@contextmanager
def serve_here(app: type[App], *, startup_seconds: float | None = None) -> Generator[str]:
    """Serve an app in a thread of this process; yield its address. It is served for the duration of the block.

    The app sees the program's patches, and a debugger stops in it. It runs with the installed packages, whatever its
    requirements say.

    Args:
        app: the app's class.
        startup_seconds: how long setup() may take; None means no limit. A setup() that takes longer continues in its
            thread.

    Raises:
        TimeoutError: setup() took too long.
        Exception: the app's setup() or, at the end of the block, its teardown() raised it.
    """
    earlier = os.environ.get(STATE_VARIABLE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = _Serving(app, listening)
        error = None
        try:
            serving.wait(startup_seconds)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
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
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=f"fal-{app.__name__}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None) -> None:
        """Wait until setup() has ended and the app answers requests.

        Raises:
            TimeoutError: that took too long.
            Exception: setup() raised it.
        """
        if not self._changed.wait(seconds):
            self._given_up = True
            raise TimeoutError(f"setup() of {self._app.__name__} took more than {seconds} seconds")
        if self._error is not None:
            raise self._error

    def stop(self) -> BaseException | None:
        """Stop like a runner, with handle_exit() and teardown(). Return the app's exception, if any."""
        if self._loop is not None and self._server is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.handle_exit, signal.SIGTERM, None)
        if not self._given_up:  # nothing can end a setup() that hangs
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
        """Poll until uvicorn answers requests, because it reports that to nobody."""
        while True:
            if self._server is not None and self._server.started:
                self._changed.set()
                return
            await asyncio.sleep(0.005)
