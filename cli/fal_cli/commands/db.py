"""`fal db`: backs up a controller's data. It also moves its database to PostgreSQL or back."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING

from fal.extras import CONTROLLER, missing
from fal_cli.controller_process import add_state_dir_option
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.options import path_type
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.counting import counted
from fal_cli.presentation.output import print_line, shown_bytes
from fal_cli.presentation.progress import LiveLine

if TYPE_CHECKING:
    from fal_server.store.sql.copying import CopyProgress

_EPILOG = """\
Examples:
  createdb fal      # the database must exist, and be empty
  fal down
  fal db copy --to postgresql://fal@db.internal/fal
  fal up -d --database postgresql://fal@db.internal/fal

A URL with a password goes into the environment, where no list of processes shows it:
  FAL_DATABASE_URL='postgresql://fal:PASSWORD@db.internal/fal' fal db copy
  FAL_DATABASE_URL='postgresql://fal:PASSWORD@db.internal/fal' fal db copy --from"""


_BACKUP_EPILOG = """\
Examples:
  fal db backup /backups/fal-$(date +%F)
  cp ~/.fal/controller/master.key /a/safer/place/

To go back, put master.key into the directory, and start a controller on it:
  fal up --state-dir /backups/fal-2026-11-29 --adopt-copy"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal db` and its sub-commands."""
    commands = add_commands(parser)
    backup = add_command(
        commands, "backup", "Back up the database, code and files of a controller, also while it runs.", _backup
    )
    backup.epilog = _BACKUP_EPILOG
    add_state_dir_option(backup)
    backup.add_argument("target", type=path_type, metavar="DIR", help="The directory to make.")
    backup.add_argument(
        "--database", metavar="URL", help="The controller's PostgreSQL database (defaults to FAL_DATABASE_URL)."
    )
    backup.add_argument("--data", action="store_true", help="Copy what runners see as /data, too.")
    backup.add_argument(
        "--keys",
        action="store_true",
        help="Copy the master key, the administrator's key and the TLS authority, too. Without them whoever has the "
        "backup cannot read its secrets; keep them apart.",
    )
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
        "--from",
        dest="origin",
        nargs="?",
        const="",
        metavar="URL",
        help="Copy from this database (defaults to FAL_DATABASE_URL) into a new SQLite file instead.",
    )


def _backup(args: argparse.Namespace) -> None:
    _require_extra()
    database = _checked(args.database)
    from fal_server.composition.backup import back_up
    from fal_server.core.faults import Fault

    with LiveLine("Backing up") as line:
        try:
            made = back_up(
                args.state_dir,
                args.target,
                database=database,
                data=args.data,
                keys=args.keys,
                report=line.step,
            )
        except Fault as fault:
            raise CommandError(fault.message) from None
    print_line(
        f"Backed up to {args.target}: the database, and {counted(made.files, 'file')} ({shown_bytes(made.bytes)})."
    )
    if made.left_out:
        print_line(f"Not in it: {', '.join(made.left_out)}.")


def _require_extra() -> None:
    if lacking := missing(CONTROLLER):
        raise CommandError(
            f"fal db needs the controller extra ({lacking[0]} is missing): pip install 'fal-grpc[controller]'"
        )


def _checked(given: str | None) -> str | None:
    """Return the URL that was given or, without one, the environment's."""
    from fal_server.composition.options import database_url

    try:
        return database_url(given) if given else os.environ.get("FAL_DATABASE_URL") or None
    except argparse.ArgumentTypeError as wrong:
        raise CommandError(str(wrong), ExitCode.USAGE) from None


def _copy(args: argparse.Namespace) -> None:
    _require_extra()
    url = _checked(args.origin or args.to)
    if not url:
        raise CommandError("name the target: --to postgresql://user@host/database, or FAL_DATABASE_URL", ExitCode.USAGE)
    from fal_server.composition.moving import move_in, move_out
    from fal_server.core.faults import Fault

    with LiveLine("Copying the database") as line:

        def show(progress: CopyProgress) -> None:
            what = "checking" if progress.checking else "copying"
            if sys.stderr.isatty() or (progress.rows == progress.total and not progress.checking):
                line.step(f"{what} {progress.table}, {progress.rows:,} of {progress.total:,} rows")

        try:
            if args.origin is not None:
                rows, path = move_in(url, args.state_dir, show)
            else:
                rows, path = move_out(args.state_dir, url, show)
        except Fault as fault:
            raise CommandError(fault.message) from None
    print_line(f"Copied {rows:,} rows, and read each again from the copy: they are the same.")
    if args.origin is not None:
        print_line(f"The database is {path} now. `fal up` uses it; the other one is as it was.")
    else:
        print_line(
            f"The SQLite file is {path} now. Code, apps' files, objects and the master key\n"
            "stay in the state directory. The next step, also for all later starts:\n"
            f"  {_next_start(args.to)}"
        )


def _next_start(url: str | None) -> str:
    """Return the command that starts a controller on the copy."""
    if url is None:
        return "fal up --detach    # with FAL_DATABASE_URL as it is now"
    return f"fal up --detach --database {shlex.quote(url)}"
