"""Relays connections from local ports to a runner's ports. They go over a command in it."""

from __future__ import annotations

import argparse
import asyncio
import errno
import inspect
import sys
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fal_cli.commands.runners import connections
from fal_cli.commands.runners.port_forward import Ports
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.presentation.output import print_line, print_note
from fal_cli.presentation.runners import ENDED_STATES, describe_end

if TYPE_CHECKING:
    from fal.api import AsyncServerlessClient

_HOST = "127.0.0.1"
_LAST_BYTES = 4096
_LOOKS = 10
_LOOK_SECONDS = 0.2
# Python without the app's settings and packages starts sooner, and they cannot change its behavior.
PYTHON = ("python", "-I", "-S", "-c")


def forward(args: argparse.Namespace, wanted: Sequence[Ports]) -> None:
    """Relay connections to the runner `args.id`. This ends with the runner, or if a signal arrives.

    Raises:
        CommandError: it ended, or a local port is in use; the message says which.
    """
    from fal.api import ExecLinkError, UnavailableError

    thread = _LoopThread(args, wanted)
    try:
        with interrupts.deferred():
            thread.start()
            try:
                with interrupts.interruptible():
                    thread.wait()
            finally:
                thread.stop()
    except (ExecLinkError, UnavailableError) as error:
        raise CommandError(str(error), ExitCode.LINK_BROKEN) from None


class _LoopThread:
    """Runs the forwarding in a thread. A signal's exception must not hit an event loop."""

    def __init__(self, args: argparse.Namespace, wanted: Sequence[Ports]) -> None:
        self._args = args
        self._wanted = wanted
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._begun = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fal-forward", daemon=True)

    def start(self) -> None:
        """Start it, and wait until it can be stopped."""
        self._thread.start()
        self._begun.wait()

    def wait(self) -> None:
        """Wait for its end, and raise its error, if any."""
        while not self._over.wait(1.0):  # on Windows a signal does not interrupt an unlimited wait
            pass
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop it, and wait for the end of the runner's command."""
        if not self._over.is_set() and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - `wait` raises it in the main thread
            self._error = error
        finally:
            self._begun.set()
            self._over.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        self._loop.set_exception_handler(lambda _, found: print_note(f"{found['message']}: {found.get('exception')}"))
        self._begun.set()
        await _carry_all(self._args, self._wanted)


async def _carry_all(args: argparse.Namespace, wanted: Sequence[Ports]) -> None:
    from fal.api import AsyncServerlessClient

    async with AsyncServerlessClient(host=args.host, team=args.team) as client, AsyncExitStack() as stack:
        session = await client.runners.exec_stream(
            args.id,
            [*PYTHON, inspect.getsource(connections)],
            interactive=True,
            on_notice=lambda message: print_note(f"fal: {message}"),
        )
        await stack.enter_async_context(session)
        forwarder = connections.Forwarder(session.send)
        stack.callback(forwarder.break_off)
        for ports in wanted:
            server = await _listen(forwarder, args.id, ports)
            stack.callback(server.close)
            here = server.sockets[0].getsockname()[1]
            print_line(f"{_HOST}:{here} leads to {_named(ports.remote)} of runner {args.id}.")
        sys.stdout.flush()
        said = b""
        async for output in session:
            if output.is_stderr:
                said = (said + output.data)[-_LAST_BYTES:]
            else:
                forwarder.feed(output.data)
        raise CommandError(await _why(client, args.id, await session.wait(), said))


async def _listen(forwarder: connections.Forwarder, runner_id: str, ports: Ports) -> asyncio.Server:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await forwarder.forward(ports.remote, reader, writer)
        except connections.Refused as refused:
            print_note(f"A connection was closed: {_named(ports.remote)} of runner {runner_id}: {refused}.")

    try:
        return await asyncio.start_server(accept, _HOST, ports.local)
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        why = "is in use" if error.errno == errno.EADDRINUSE else "is for the administrator only"
        remote = "app" if ports.remote == connections.APP_PORT else ports.remote
        raise CommandError(f"port {ports.local} of this machine {why}: `:{remote}` takes a free one") from None


def _named(port: int) -> str:
    return "the app's port" if port == connections.APP_PORT else f"port {port}"


async def _why(client: AsyncServerlessClient, runner_id: str, code: int, said: bytes) -> str:
    """Return why the command in the runner has ended. It relays the connections."""
    from fal.api import FalError

    # The controller learns of a runner's end a little later than its commands end.
    for _ in range(_LOOKS):
        try:
            runner = await client.runners.get(runner_id)
        except FalError:
            break
        if runner.state.value in ENDED_STATES:
            return describe_end(runner)
        await asyncio.sleep(_LOOK_SECONDS)
    lines = said.decode(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"the command in runner {runner_id} that carries the connections ended with exit code {code}{last}"
