"""`fal runners logs`: shows and follows the log of a runner."""

from __future__ import annotations

import argparse

from fal_cli.completion import complete_ids
from fal_cli.ids import RUNNERS, resolve
from fal_cli.options import add_log_options, open_client
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.output import print_note
from fal_cli.presentation.runners import describe_end


def add_command_to(commands: Commands) -> None:
    """Declare `logs`, also called `log`."""
    parser = add_command(commands, "logs", "Show logs for a runner.", _logs, aliases=("log",))
    complete_ids(parser.add_argument("id", help="Runner ID."), RUNNERS)
    add_log_options(
        parser,
        since="Show logs since the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp. "
        "Defaults to runner start time or to '1m ago' in --follow mode.",
        until="Show logs until the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp. "
        "Defaults to runner finish time or 'now' if it is still running.",
        lines="Only show latest N log lines. If '+' prefix is used, show oldest N log lines. "
        "Ignored if --follow is used.",
    )


def _logs(args: argparse.Namespace) -> None:
    from fal_cli.presentation.logs import check_times, searched, write_entries, write_followed

    check_times(args, end="until the runner ends")
    with open_client(args) as client:
        args.id = resolve(client, RUNNERS, args.id, args)
        if args.follow:
            if args.lines:
                print_note("--lines is ignored with --follow; --since says where to start.")
            entries = client.runners.logs(
                args.id,
                follow=True,
                since=args.since,
                search=args.search,
                sources=args.source,
                request_id=args.request_id,
            )
            write_followed(args.output, entries)
            print_note(describe_end(client.runners.get(args.id)))
            return
        lines, oldest = args.lines or (None, False)
        found = searched(
            lambda on_progress: client.runners.logs(
                args.id,
                since=args.since,
                until=args.until,
                search=args.search,
                lines=lines,
                oldest=oldest,
                sources=args.source,
                request_id=args.request_id,
                on_progress=on_progress,
            ),
            subject=args.id,
            oldest=oldest,
        )
        write_entries(args.output, found)
