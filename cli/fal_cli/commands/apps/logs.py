"""`fal apps logs`: shows the merged log of an app's runners."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, REQUESTS, resolve
from fal_cli.options import add_env_option, add_log_options, open_client
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.logs import check_times, searched, write_entries, write_followed

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import LogEntry


def add_command_to(commands: Commands) -> None:
    """Declare `logs`, also called `log`."""
    parser = add_command(
        commands, "logs", "Show logs of all runners of an application, merged.", _logs, aliases=("log",)
    )
    complete_ids(parser.add_argument("app_name", help="Application name."), APPS)
    add_env_option(parser)
    add_log_options(
        parser,
        since="Show logs since the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp. "
        "Defaults to the oldest line kept, or to '1m ago' in --follow mode.",
        until="Show logs until the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp.",
        lines="Only show latest N log lines; with --follow, before the new ones. If '+' prefix is used, show oldest N.",
    )


def _logs(args: argparse.Namespace) -> None:
    check_times(args, end="until it is interrupted")
    lines, oldest = args.lines or (None, False)
    if args.follow and oldest:
        raise CommandError("--follow cannot start with the oldest lines: use --since", ExitCode.USAGE)
    with open_client(args) as client:
        request_id = args.request_id and resolve(client, REQUESTS, args.request_id, args)

        def read(on_progress: Callable[[datetime], None] | None) -> Iterable[LogEntry]:
            return client.apps.logs(
                args.app_name,
                follow=args.follow,
                since=args.since,
                until=args.until,
                search=args.search,
                lines=lines,
                oldest=oldest,
                sources=args.source,
                request_id=request_id,
                environment_name=args.env,
                on_progress=on_progress,
            )

        if args.follow:
            write_followed(args.output, read(None), prefixed=True)
        else:
            found = searched(read, subject=args.app_name, oldest=oldest)
            write_entries(args.output, found, prefixed=True)
