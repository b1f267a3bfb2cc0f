"""Declares and runs `fal dev`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from fal_cli.controller_process import default_state_dir, find_controller
from fal_cli.interrupts import ENDING, interrupts
from fal_cli.local_profile import write_profile
from fal_cli.options import add_client_options, add_env_option
from fal_cli.parser import FalParser

if TYPE_CHECKING:
    from fal.api import AsyncServerlessClient

# A user who sets one of these chooses a controller.
_CHOICES = ("FAL_GRPC_HOST", "FAL_HOST", "FAL_PROFILE")
_EPILOG = """\
Examples:
  fal dev path/to/myfile.py
  fal dev path/to/myfile.py::MyApp --app-name myapp-try
  fal dev my-app

The app is served as it would be deployed, under the name NAME-dev: by the controller of this
machine if one runs, else by one in a temporary folder that ends with this command. --host or
FAL_HOST name another. Ctrl-C ends the app and removes what was deployed of it."""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal dev`."""
    parser.description = (
        "Serve an app, and serve it again after each edit of its files. The previous version serves until the new one "
        "is ready, and keeps serving if that fails."
    )
    parser.epilog = _EPILOG
    parser.set_defaults(handler=_dev)
    add_client_options(parser)
    parser.add_argument(
        "app_ref", nargs="?", help="A file, a file and a name in it (FILE.py::NAME), or a name in pyproject.toml."
    )
    parser.add_argument("--app-name", help="The name to serve it under (defaults to the app's own with -dev).")
    parser.add_argument(
        "--auth",
        choices=("public", "private", "shared"),
        default="public",
        help="Who may call it (defaults to public, whatever the code says).",
    )
    add_env_option(parser)


def _dev(args: argparse.Namespace) -> int:
    # Whatever signal ends this, the app and the controller that it started are removed.
    with interrupts.deferred(), _controller(args) as client:
        return asyncio.run(_serve(client, args))


async def _serve(client: AsyncServerlessClient, args: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code. A second signal ends this process at once."""
    from fal_cli.commands.dev.session import DevSession
    from fal_cli.commands.dev.view import View

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    taken: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        if taken:
            os._exit(128 + number)
        taken.append(number)
        loop.call_soon_threadsafe(task.cancel)

    # asyncio's own handlers do not exist on every system.
    before = {number: signal.signal(number, end) for number in ENDING}
    session = DevSession(
        client,
        args.app_ref,
        app_name=args.app_name,
        auth=args.auth,
        environment_name=args.env,
        view=View(),
    )
    try:
        async with client:
            await session.run()
    except asyncio.CancelledError:
        if not taken:
            raise
        return 128 + taken[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


@contextmanager
def _controller(args: argparse.Namespace) -> Generator[AsyncServerlessClient]:
    """Yield a client of a controller. It is the chosen one, the local one, or a new temporary one."""
    from fal.api import AsyncServerlessClient

    if args.host or any(os.environ.get(name) for name in _CHOICES):
        yield AsyncServerlessClient(host=args.host, team=args.team)
        return
    found = find_controller(default_state_dir().absolute())
    if found is not None and found.tls:
        yield AsyncServerlessClient(profile=write_profile(found).name)
        return
    if found is not None:
        yield AsyncServerlessClient(host=found.host, api_key=found.key())
        return
    from fal.testing.controller import TemporaryController
    from fal_cli.presentation.progress import LiveLine

    controller = TemporaryController()
    try:
        with LiveLine("Starting a controller in a temporary folder"), interrupts.interruptible():
            controller.start()
        yield AsyncServerlessClient(host=controller.host, api_key=controller.key)
    finally:
        with LiveLine("Stopping the controller in the temporary folder"):
            controller.close()
