"""`fal runners cp`: copies files and folders to and from a runner. It uses a command in the runner."""

from __future__ import annotations

import argparse

from fal_cli.completion import complete_places
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import RUNNERS, resolve
from fal_cli.options import add_client_options, open_client
from fal_cli.parser import Commands, add_command

_HELP = "Copy files and folders to or from a runner."
_EPILOG = """\
One of SRC and DST is ID:PATH, a path on that runner; one that is not absolute begins in the app's directory. If DST is
a folder that exists, SRC goes into it. Links and devices are left out.

Examples:
  fal runners cp 83dd5028:results.json .
  fal runners cp weights 83dd5028:/tmp"""


def add_command_to(commands: Commands) -> None:
    """Declare `cp`."""
    parser = add_command(commands, "cp", _HELP, _copy, epilog=_EPILOG, published=False)
    add_client_options(parser)
    complete_places(parser.add_argument("source", metavar="SRC", help="What to copy."), RUNNERS)
    complete_places(parser.add_argument("destination", metavar="DST", help="Where to."), RUNNERS)


def _copy(args: argparse.Namespace) -> None:
    from pathlib import Path

    # The other runner commands need no archives.
    from fal_cli.commands.runners.transfer import Place, download, upload

    source, destination = _place(args.source), _place(args.destination)
    if (source is None) == (destination is None):
        raise CommandError("one of SRC and DST must be ID:PATH, a path on a runner", ExitCode.USAGE)
    with open_client(args) as client:
        if source is not None:
            runner_id = resolve(client, RUNNERS, source[0], args)
            download(client, Place(runner_id, source[1]), Path(args.destination))
        elif destination is not None:
            runner_id = resolve(client, RUNNERS, destination[0], args)
            upload(client, Path(args.source), Place(runner_id, destination[1]))


def _place(text: str) -> tuple[str, str] | None:
    """Return the runner and path that a text names. None for a local path, which may be written `./a:b`."""
    runner_id, colon, path = text.partition(":")
    if not colon or not runner_id or "/" in runner_id or "." in runner_id:
        return None
    return runner_id, path or "."
