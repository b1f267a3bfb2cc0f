"""`fal queue`: how many requests of an app wait, which they are, and what to do with them."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from fal_cli.client import open_client
from fal_cli.exits import CommandError, ExitCode
from fal_cli.output import say, write_document, write_list, write_table
from fal_cli.parser import FalParser, add_client_options, add_command, add_commands, add_output_options
from fal_cli.table import Column

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal_grpc.adapter.values import JSON

_STATES = ("in_queue", "in_progress", "completed")
_COLUMNS = (
    Column(title="Request ID"),
    Column(title="State"),
    Column(title="Priority"),
    Column(title="Attempt", right=True),
    Column(title="Status", right=True),
    Column(title="Created At", folds=True),
    Column(title="Caller", folds=True),
    Column(title="Error", folds=True),
)
_BY_USER = (Column(title="Name"), Column(title="Count", right=True))
_APP_HELP = "Application name (do not prefix with owner)."


def add_arguments(parser: FalParser) -> None:
    """Declare `fal queue` and its sub-commands."""
    commands = add_commands(parser)
    size = add_command(commands, "size", "Get queue size for an application.", _size)
    _add_app(size)
    size.add_argument("--by-user", action="store_true", help="Group queue size by user: the id of the caller's key.")
    add_output_options(size)
    flush = add_command(commands, "flush", "Cancel all requests that wait for an application.", _flush)
    _add_app(flush)
    flush.add_argument("--caller-user-id", help="Cancel the requests of this user alone, as --by-user names it.")
    list_parser = add_command(commands, "list", "List an application's requests, newest first.", _list)
    _add_app(list_parser)
    list_parser.add_argument("--state", choices=_STATES, help="Only requests in this state.")
    list_parser.add_argument(
        "--dead", action="store_true", help="Only requests that were given up, though another attempt might help."
    )
    list_parser.add_argument("--limit", type=_limit, default=100, help="At most so many (1 to 1000).")
    add_output_options(list_parser)
    get = add_command(commands, "get", "Show a request and the deliveries of its webhook.", _get)
    _add_app(get)
    get.add_argument("request_id", help="Request ID.")
    add_output_options(get)
    cancel = add_command(commands, "cancel", "Cancel requests, also those that are being worked on.", _cancel)
    _add_app(cancel)
    cancel.add_argument("request_ids", nargs="+", metavar="request_id", help="Request ID.")
    redrive = add_command(commands, "redrive", "Queue requests again that were given up.", _redrive)
    _add_app(redrive)
    redrive.add_argument("request_ids", nargs="*", metavar="request_id", help="Request ID.")
    redrive.add_argument("--all", action="store_true", help="All that were given up.")


def _add_app(parser: FalParser) -> None:
    add_client_options(parser)
    parser.add_argument("app_name", help=_APP_HELP)


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 1000")
    return number


class _Queue:
    """The queue of one app."""

    def __init__(self, rest: Rest, path: str) -> None:
        self._rest = rest
        self._path = path

    def ask(self, method: str, *parts: str, **query: str | None) -> dict[str, JSON]:
        """Call; the object that is answered."""
        path = "/".join((self._path, *(quote(part, safe="") for part in parts)))
        answer = self._rest.ask(method, path, **query)
        return answer if isinstance(answer, dict) else {}


@contextmanager
def _open(args: argparse.Namespace) -> Generator[_Queue]:
    with open_client(args) as client:
        rest = client.rest()
        user = rest.ask("GET", "/users/current")
        nickname = user.get("nickname") if isinstance(user, dict) else None
        if not isinstance(nickname, str):
            raise CommandError("the controller did not say whose key this is")
        yield _Queue(rest, f"/applications/{quote(nickname, safe='')}/{quote(args.app_name, safe='')}/queue")


def _size(args: argparse.Namespace) -> None:
    with _open(args) as queue:
        answer = queue.ask("GET", by_user="true" if args.by_user else None)
    size, by_user = answer.get("size", 0), answer.get("by_user")
    if args.output != "pretty":
        write_document(args.output, {"size": size} if by_user is None else {"size": size, "by_user": by_user})
        return
    if isinstance(by_user, dict) and by_user:
        write_table(_BY_USER, ((name, str(count)) for name, count in by_user.items()))
    say(f"Total queue size: {size}")


def _flush(args: argparse.Namespace) -> None:
    with _open(args) as queue:
        queue.ask("DELETE", caller_user_id=args.caller_user_id)
    say("Queue flushed successfully.")


def _list(args: argparse.Namespace) -> None:
    with _open(args) as queue:
        found = _listed(queue, state=args.state, dead="1" if args.dead else None, limit=str(args.limit))
    if args.output != "pretty":
        write_list(args.output, "requests", found)
        return
    names = ("request_id", "state", "priority", "attempt", "status", "created_at", "caller", "error")
    write_table(_COLUMNS, ([_shown(request.get(name)) for name in names] for request in found))


def _get(args: argparse.Namespace) -> None:
    with _open(args) as queue:
        request = queue.ask("GET", "requests", args.request_id)
    if args.output != "pretty":
        write_document(args.output, request)
        return
    for name, value in request.items():
        if not isinstance(value, list):
            say(f"{name}: {_shown(value)}")
    deliveries = request.get("deliveries")
    for delivery in deliveries if isinstance(deliveries, list) else ():
        if isinstance(delivery, dict):
            went = delivery.get("error") or f"answered {delivery.get('status')}"
            say(f"webhook, try {delivery.get('number')} at {delivery.get('at')}: {went}")


def _cancel(args: argparse.Namespace) -> None:
    with _open(args) as queue:
        for request_id in args.request_ids:
            queue.ask("POST", "requests", request_id, "cancel")
            say(f"Cancelled {request_id}")


def _redrive(args: argparse.Namespace) -> None:
    if bool(args.request_ids) == args.all:
        raise CommandError("name the requests, or say --all", ExitCode.USAGE)
    with _open(args) as queue:
        request_ids = args.request_ids
        if args.all:
            request_ids = [str(request["request_id"]) for request in _listed(queue, dead="1", limit="1000")]
            if not request_ids:
                say("Nothing was given up.")
        for request_id in request_ids:
            queue.ask("POST", "requests", request_id, "redrive")
            say(f"Queued again {request_id}")


def _listed(queue: _Queue, **query: str | None) -> list[dict[str, JSON]]:
    found = queue.ask("GET", "requests", **query).get("requests")
    return [request for request in found if isinstance(request, dict)] if isinstance(found, list) else []


def _shown(value: JSON) -> str:
    return "-" if value is None else str(value)
