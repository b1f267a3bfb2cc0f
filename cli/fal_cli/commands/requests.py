"""`fal requests`: shows how requests to apps ended."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.ids import APPS, ENDED_REQUESTS, KEYS, RUNNERS, resolve
from fal_cli.options import (
    add_client_options,
    add_env_option,
    add_output_options,
    int_type,
    open_client,
    time_type,
)
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import add_list_options, run_list, write_items
from fal_cli.presentation.logs import write_entries
from fal_cli.presentation.notes import notes_on_stderr
from fal_cli.presentation.output import print_line, print_note, write_document, write_line
from fal_cli.presentation.requests import REQUESTS, print_ended, request_document, write_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal.api import LogEntry, RequestRecord, SyncServerlessClient

_STATUSES = ("success", "user_error", "error", "left")
# An app may write lines about a request shortly before and after it.
_AROUND = timedelta(seconds=5)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal requests` and its sub-commands."""
    commands = add_commands(parser)
    list_parser = add_command(commands, "list", "List requests that have ended, the latest first.", _list)
    _add_filters(list_parser)
    list_parser.add_argument(
        "--since",
        type=time_type(past=True),
        metavar="WHEN",
        help="Only requests that ended since, such as 2h or 1 day.",
    )
    list_parser.add_argument(
        "--until", type=time_type(), metavar="WHEN", help="Only requests that ended before this time."
    )
    complete_ids(
        list_parser.add_argument("--runner", metavar="ID", help="Only requests that this runner got."), RUNNERS
    )
    complete_ids(list_parser.add_argument("--key", metavar="ID", help="Only requests with this key."), KEYS)
    list_parser.add_argument("--endpoint", metavar="PATH", help="Only requests to this path, as the app describes it.")
    list_parser.add_argument(
        "--limit", type=int_type, default=100, metavar="N", help="How many at most (defaults to %(default)s)."
    )
    add_list_options(list_parser, REQUESTS)
    get = add_command(commands, "get", "Show a request that has ended.", _get)
    add_client_options(get)
    complete_ids(get.add_argument("request_id", help="Request ID."), ENDED_REQUESTS)
    get.add_argument("--logs", action="store_true", help="Also show what was logged for it.")
    add_output_options(get)
    tail = add_command(commands, "tail", "Show requests as they end.", _tail)
    _add_filters(tail)
    tail.add_argument(
        "--since", type=time_type(past=True), metavar="WHEN", help="Begin with requests that ended since, such as 5m."
    )
    add_output_options(tail)


def _add_filters(parser: FalParser) -> None:
    add_client_options(parser)
    add_env_option(parser)
    complete_ids(parser.add_argument("app_name", nargs="?", help="Application name; all if left out."), APPS)
    parser.add_argument(
        "--status",
        choices=_STATUSES,
        help="Only requests that ended with a status below 400, below 500, or from 500 on, or whose caller left.",
    )


def _list(args: argparse.Namespace) -> None:
    def fetch(client: SyncServerlessClient) -> list[RequestRecord]:
        return client.requests.list(
            args.app_name,
            status=args.status,
            since=args.since,
            until=args.until,
            runner_id=resolve(client, RUNNERS, args.runner, args) if args.runner else None,
            key_id=resolve(client, KEYS, args.key, args) if args.key else None,
            endpoint=args.endpoint,
            environment_name=args.env,
            limit=args.limit,
        )

    run_list(args, fetch, lambda requests: write_items(args, REQUESTS, requests))


def _get(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        request = client.requests.get(resolve(client, ENDED_REQUESTS, args.request_id, args))
        lines = list(_logs(client, request)) if args.logs else None
    if args.output != "pretty":
        document = request_document(request)
        if lines is not None:
            document["logs"] = [
                {"timestamp": line.timestamp.isoformat(), "level": line.level.value, "message": line.message}
                for line in lines
            ]
        write_document(args.output, document)
        return
    write_request(request)
    if lines:
        print_line("")
        write_entries("pretty", lines)
    elif lines is not None:
        print_note("Nothing was logged for it.")


def _logs(client: SyncServerlessClient, request: RequestRecord) -> Iterator[LogEntry]:
    yield from client.apps.logs(
        request.app,
        since=request.received_at - _AROUND,
        until=request.ended_at + _AROUND,
        request_id=request.request_id,
    )


def _tail(args: argparse.Namespace) -> None:
    with open_client(args) as client, notes_on_stderr():
        requests = client.requests.follow(
            args.app_name, status=args.status, since=args.since, environment_name=args.env
        )
        for request in requests:
            if args.output == "pretty":
                print_ended(request)
            else:
                write_line(request_document(request))
            sys.stdout.flush()
