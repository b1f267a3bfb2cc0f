"""`fal apps stats`: shows an app's request counts, durations and failures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.ids import APPS
from fal_cli.options import add_client_options, add_env_option, duration_type, time_type
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.listing import add_list_options, run_list, write_items
from fal_cli.presentation.requests import STATS

if TYPE_CHECKING:
    from fal.api import RequestStats, SyncServerlessClient


def add_command_to(commands: Commands) -> None:
    """Declare `stats`."""
    parser = add_command(
        commands, "stats", "Show how many requests an application answers, and how fast.", _stats, published=False
    )
    add_client_options(parser)
    add_env_option(parser)
    complete_ids(parser.add_argument("app_name", help="Application name."), APPS)
    parser.add_argument(
        "--since", type=time_type(past=True), metavar="WHEN", help="From this time on (defaults to an hour ago)."
    )
    parser.add_argument("--until", type=time_type(), metavar="WHEN", help="Until this time (defaults to now).")
    parser.add_argument(
        "--step",
        type=duration_type,
        metavar="DURATION",
        help="Show statistics for parts of this length, such as 5m, in whole minutes.",
    )
    add_list_options(parser, STATS)


def _stats(args: argparse.Namespace) -> None:
    def fetch(client: SyncServerlessClient) -> list[RequestStats]:
        def ask(*, by_endpoint: bool) -> list[RequestStats]:
            return client.requests.stats(
                args.app_name,
                since=args.since,
                until=args.until,
                step=args.step,
                by_endpoint=by_endpoint,
                environment_name=args.env,
            )

        found = ask(by_endpoint=args.step is None)
        return found if len(found) < 2 or args.step is not None else [*found, *ask(by_endpoint=False)]

    def write(found: list[RequestStats]) -> None:
        write_items(args, STATS, found, hidden=frozenset({"Endpoint"} if args.step else {"Since"}))

    run_list(args, fetch, write)
