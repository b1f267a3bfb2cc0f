"""`fal curl`: calls an app with curl. It supplies the app's address and the key."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fal.hosts import find_hosts
from fal_cli.commands.api.app_ids import nickname_of
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS
from fal_cli.options import add_client_options, open_client
from fal_cli.parser import FalParser

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient

_EPILOG = """\
Options of fal itself come before the app.

Examples:
  fal curl hello/ -H 'Content-Type: application/json' -d '{"name": "Ada"}'
  fal curl hello/health -i"""


def add_arguments(parser: FalParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Call an app with curl: its address takes the place of APP/PATH, and the key goes along without being seen in "
        "the list of processes. APP alone is your own; OWNER/APP names another's."
    )
    parser.epilog = _EPILOG
    add_client_options(parser)
    complete_ids(parser.add_argument("app", metavar="APP/PATH", help="Application, and the path to call."), APPS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="Arguments of curl, as they are.")
    parser.set_defaults(handler=_curl)


def _curl(args: argparse.Namespace) -> int:
    program = shutil.which("curl")
    if program is None:
        raise CommandError("curl is not installed here: `fal api` calls apps without it", ExitCode.USAGE)
    with open_client(args) as client:
        settings = client.settings
        url = f"{find_hosts(settings).run}/{_path(client, args.app)}"
        headers = settings.credentials.headers()
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as config:
        config.write(_config(headers))
    try:
        done = subprocess.run(
            [program, "--config", f"/dev/fd/{reader}", *args.arguments, "--url", url], pass_fds=(reader,), check=False
        )
    finally:
        os.close(reader)
    return done.returncode


def _path(client: SyncServerlessClient, app: str) -> str:
    """Return the path of a call: `hello/x` is the caller's own app, unless `hello` is an owner's name."""
    app = app.lstrip("/")
    first, slash, rest = app.partition("/")
    nickname = nickname_of(client)
    if nickname is None or first == nickname:
        return app
    own = {found.alias for found in client.apps.list()}
    second = rest.partition("/")[0]
    if first not in own and second:
        return app
    return f"{nickname}/{first}{slash}{rest}"


def _config(headers: Mapping[str, str]) -> str:
    """Return headers as curl's configuration, because everybody can read its arguments."""
    quoted = (f"{name}: {value}".replace("\\", "\\\\").replace('"', '\\"') for name, value in headers.items())
    return "".join(f'header = "{line}"\n' for line in quoted)
