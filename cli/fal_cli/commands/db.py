"""`fal db`: moves a controller's database to PostgreSQL, or back."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from fal.extras import CONTROLLER, missing
from fal_cli.controller_process import add_state_dir_option
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.output import print_line
from fal_cli.presentation.progress import LiveLine

if TYPE_CHECKING:
    from fal_server.store.sql.copying import CopyProgress

_EPILOG = """\
Examples:
  createdb fal      # the database must exist, and be empty
  fal down
  fal db copy --to postgresql://fal@db.internal/fal
  fal up -d --database postgresql://fal@db.internal/fal

A password belongs into the environment, where no list of processes shows it:
  FAL_DATABASE_URL='postgresql://fal:PASSWORD@db.internal/fal' fal db copy"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal db` and its sub-command."""
    commands = add_commands(parser)
    copy = add_command(
        commands, "copy", "Copy the database of a stopped controller to PostgreSQL, or from there, and check it.", _copy
    )
    copy.epilog = _EPILOG
    add_state_dir_option(copy)
    way = copy.add_mutually_exclusive_group()
    way.add_argument(
        "--to",
        metavar="URL",
        help="The empty PostgreSQL database to copy to (defaults to FAL_DATABASE_URL). The SQLite file is renamed.",
    )
    way.add_argument(
        "--from", dest="origin", metavar="URL", help="Copy from this database into a new SQLite file instead."
    )


def _copy(args: argparse.Namespace) -> None:
    url = args.origin or args.to or os.environ.get("FAL_DATABASE_URL")
    if not url:
        raise CommandError("say where to: --to postgresql://user@host/database, or FAL_DATABASE_URL", ExitCode.USAGE)
    if "://" not in url:
        raise CommandError(f"'{url}' is no URL: a database is given as postgresql://user@host/database", ExitCode.USAGE)
    if lacking := missing(CONTROLLER):
        raise CommandError(
            f"fal db needs the controller extra ({lacking[0]} is missing): pip install 'fal-grpc[controller]'"
        )
    from fal_server.composition.moving import move_in, move_out
    from fal_server.core.faults import Fault

    with LiveLine("Copying the database") as line:

        def show(progress: CopyProgress) -> None:
            what = "checking" if progress.checking else "copying"
            if sys.stderr.isatty() or (progress.rows == progress.total and not progress.checking):
                line.step(f"{what} {progress.table}, {progress.rows:,} of {progress.total:,} rows")

        try:
            if args.origin:
                rows, path = move_in(url, args.state_dir, show)
            else:
                rows, path = move_out(args.state_dir, url, show)
        except Fault as fault:
            raise CommandError(fault.message) from None
    print_line(f"Copied {rows:,} rows, and read each again from the copy: they are the same.")
    if args.origin:
        print_line(f"The database is {path} now. `fal up` uses it; the other one is as it was.")
    else:
        print_line(
            f"The SQLite file is {path} now.\n"
            "Start the controller with --database or FAL_DATABASE_URL from now on; blobs and\n"
            "apps' files stay in the state directory."
        )
