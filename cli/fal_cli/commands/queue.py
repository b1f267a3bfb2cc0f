"""`fal queue`: counts, lists, cancels and redrives the requests of an app."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from fal.api import name_in_environment
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, resolve
from fal_cli.ids import REQUESTS as REQUEST_IDS
from fal_cli.options import add_client_options, add_env_option, add_output_options, name_type, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.counting import counted
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_error, print_line, print_note, shown_time, write_document, write_table
from fal_cli.presentation.table import Column
from fal_cli.prompts import add_yes_option, confirm

if TYPE_CHECKING:
    from fal.api import JSON, SyncServerlessClient
    from fal.api.queue import QueueNamespace
    from fal.queue import QueuedRequest

_FLUSHED_AT_ONCE = 2000
_STATES = ("in_queue", "in_progress", "completed")
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
    add_yes_option(flush)
    flush.add_argument(
        "--caller-user-id", type=name_type, help="Cancel only the requests of this user, as --by-user names it."
    )
    list_parser = add_command(commands, "list", "List an application's requests, newest first.", _list)
    _add_app(list_parser)
    list_parser.add_argument("--state", choices=_STATES, help="Only requests in this state.")
    list_parser.add_argument(
        "--dead", action="store_true", help="Only requests that were given up, though another attempt might help."
    )
    list_parser.add_argument(
        "--limit", type=_limit, default=100, metavar="N", help="How many at most, 1 to 1000 (defaults to %(default)s)."
    )
    add_list_options(list_parser, REQUESTS)
    get = add_command(commands, "get", "Show a request and the deliveries of its webhook.", _get)
    _add_app(get)
    complete_ids(get.add_argument("request_id", help="Request ID."), REQUEST_IDS)
    add_output_options(get)
    cancel = add_command(commands, "cancel", "Cancel requests, also those in progress.", _cancel)
    _add_app(cancel)
    request_ids = cancel.add_argument("request_ids", nargs="+", metavar="request_id", help="Request ID.")
    complete_ids(request_ids, REQUEST_IDS)
    redrive = add_command(commands, "redrive", "Queue requests again that were given up.", _redrive)
    _add_app(redrive)
    request_ids = redrive.add_argument("request_ids", nargs="*", metavar="request_id", help="Request ID.")
    complete_ids(request_ids, REQUEST_IDS)
    redrive.add_argument("--all", action="store_true", help="All that were given up.")


def _add_app(parser: FalParser) -> None:
    add_client_options(parser)
    add_env_option(parser)
    complete_ids(parser.add_argument("app_name", help=_APP_HELP), APPS)


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 1000")
    return number


def _size(args: argparse.Namespace) -> None:
    args.app_name = name_in_environment(args.app_name, args.env)
    with open_client(args) as client:
        by_user = client.queue.size_by_user(args.app_name) if args.by_user else None
        size = client.queue.size(args.app_name) if by_user is None else sum(by_user.values())
    if args.output != "pretty":
        write_document(args.output, {"size": size} if by_user is None else {"size": size, "by_user": by_user})
        return
    if by_user:
        write_table(_BY_USER, ((name, str(count)) for name, count in by_user.items()))
    print_line(f"Total queue size: {size}")


def _flush(args: argparse.Namespace) -> None:
    from fal.api import FalError

    args.app_name = name_in_environment(args.app_name, args.env)
    with open_client(args) as client:
        confirm(args, lambda: _flush_question(client, args))
        count = 0
        try:
            while some := client.queue.flush(args.app_name, caller_user_id=args.caller_user_id, limit=_FLUSHED_AT_ONCE):
                count += some
                if some < _FLUSHED_AT_ONCE:
                    break
                print_note(f"Cancelled {counted(count, 'request')} so far ...")
        except FalError:
            if count:
                print_note(f"Cancelled {counted(count, 'request')}. Repeat the command for the rest.")
            raise
    if not count:
        print_line(f"{'No request' if _whose(args) else 'Nothing'}{_whose(args)} waits for '{args.app_name}'.")
        return
    print_line("Queue flushed successfully.")
    print_note(f"Cancelled {counted(count, 'request')}; those in progress go on.")


def _flush_question(client: SyncServerlessClient, args: argparse.Namespace) -> str | None:
    """Return the question; None if nothing waits."""
    waiting = client.queue.size_by_user(args.app_name)
    caller: str | None = args.caller_user_id
    count = sum(waiting.values()) if caller is None else waiting.get(caller, 0)
    if not count:
        return None
    waits = "waits" if count == 1 else "wait"
    return f"Cancel {counted(count, 'request')}{_whose(args)} that {waits} for '{args.app_name}'?"


def _whose(args: argparse.Namespace) -> str:
    return f" of {args.caller_user_id}" if args.caller_user_id is not None else ""


def _list(args: argparse.Namespace) -> None:
    args.app_name = name_in_environment(args.app_name, args.env)
    run_list(
        args,
        lambda client: client.queue.list(args.app_name, state=args.state, dead=args.dead, limit=args.limit),
        lambda found: _write(args, found),
    )


def _write(args: argparse.Namespace, found: Sequence[QueuedRequest]) -> None:
    write_items(args, REQUESTS, found)
    if len(found) == args.limit:
        print_note(f"There may be more than the newest {args.limit}; --limit lists at most 1000.")


def _get(args: argparse.Namespace) -> None:
    args.app_name = name_in_environment(args.app_name, args.env)
    with open_client(args) as client:
        request = client.queue.get(args.app_name, resolve(client, REQUEST_IDS, args.request_id, args))
    item = _item(request)
    if request.queue_position is not None:
        item["queue_position"] = request.queue_position
    if request.reason is not None:
        item |= {"reason": request.reason, "next_try_at": _iso(request.next_try_at)}
    if args.output != "pretty":
        deliveries = [{**asdict(delivery), "at": _iso(delivery.at)} for delivery in request.deliveries]
        write_document(args.output, {**item, "deliveries": deliveries})
        return
    for name, value in item.items():
        at = getattr(request, name, None)
        print_line(f"{name}: {shown_time(at) if isinstance(at, datetime) else _shown(value)}")
    for delivery in request.deliveries:
        went = delivery.error or f"answered {delivery.status}"
        print_line(f"webhook, try {delivery.number} at {shown_time(delivery.at)}: {went}")


def _each(ids: Sequence[str], act: Callable[[str], None]) -> ExitCode:
    """Do something with each request, even if it fails for some. Return FAILED then."""
    from fal.api import FailedPreconditionError, InvalidArgumentError, NotFoundError

    code = ExitCode.OK
    for request_id in ids:
        try:
            act(request_id)
        except (FailedPreconditionError, InvalidArgumentError, NotFoundError) as error:
            print_error(str(error))
            code = ExitCode.FAILED
    return code


def _cancel(args: argparse.Namespace) -> ExitCode:
    from fal.api import QueueState

    args.app_name = name_in_environment(args.app_name, args.env)
    with open_client(args) as client:

        def cancel(request_id: str) -> None:
            if client.queue.cancel(args.app_name, request_id).state is QueueState.IN_PROGRESS:
                print_line(f"Asked the app to cancel {request_id}, which is in progress: it may finish all the same")
            else:
                print_line(f"Cancelled {request_id}")

        return _each([resolve(client, REQUEST_IDS, text, args) for text in args.request_ids], cancel)


def _redrive(args: argparse.Namespace) -> ExitCode:
    args.app_name = name_in_environment(args.app_name, args.env)
    if bool(args.request_ids) == args.all:
        raise CommandError("name the requests, or say --all", ExitCode.USAGE)
    with open_client(args) as client:
        if args.all:
            _redrive_all(client.queue, args.app_name)

        def redrive(request_id: str) -> None:
            client.queue.redrive(args.app_name, request_id)
            print_line(f"Queued again {request_id}")

        return _each([resolve(client, REQUEST_IDS, text, args) for text in args.request_ids], redrive)


def _redrive_all(queue: QueueNamespace, app_name: str) -> None:
    """Queue all given-up requests again, each once. This holds even if one is given up again meanwhile."""
    from fal.queue import MAX_LISTED, MAX_REDRIVEN

    seen: set[str] = set()
    while found := {request.request_id for request in queue.list(app_name, dead=True, limit=MAX_LISTED)} - seen:
        seen |= found
        ids = sorted(found)
        for start in range(0, len(ids), MAX_REDRIVEN):
            for request_id in queue.redrive_many(app_name, ids[start : start + MAX_REDRIVEN]):
                print_line(f"Queued again {request_id}")
    if not seen:
        print_line("Nothing was given up.")


def _item(request: QueuedRequest) -> dict[str, JSON]:
    """Return a request as JSON."""
    return {
        "request_id": request.request_id,
        "app": request.app,
        "method": request.method,
        "path": request.path,
        "caller": request.caller,
        "priority": request.priority,
        "state": request.state.value,
        "attempt": request.attempt,
        "created_at": _iso(request.created_at),
        "not_before": _iso(request.not_before),
        "started_at": _iso(request.started_at),
        "completed_at": _iso(request.completed_at),
        "runner_id": request.runner_id,
        "status": request.status,
        "error": request.error,
        "error_type": request.error_type,
        "dead": request.dead,
        "webhook": request.webhook,
        "webhook_attempts": request.webhook_attempts,
        "webhook_at": _iso(request.webhook_at),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _shown(value: JSON) -> str:
    return "-" if value is None else str(value)


REQUESTS: Listing[QueuedRequest] = Listing(
    noun="requests",
    fields=(
        Field(title="Request ID", shortens=True, text=lambda request: request.request_id),
        Field(title="State", text=lambda request: "DEAD" if request.dead else request.state.value),
        Field(title="Priority", text=lambda request: _shown(request.priority), wide=True),
        Field(
            title="Attempt",
            text=lambda request: _shown(request.attempt),
            sort_key=lambda request: request.attempt,
            right=True,
        ),
        Field(
            title="Status",
            text=lambda request: _shown(request.status),
            sort_key=lambda request: request.status,
            right=True,
        ),
        time_field("Created At", lambda request: request.created_at),
        Field(title="Caller", text=lambda request: _shown(request.caller), folds=True, wide=True),
        Field(title="Error", text=lambda request: _shown(request.error), folds=True),
    ),
    document=_item,
    item_name=lambda request: request.request_id,
)
