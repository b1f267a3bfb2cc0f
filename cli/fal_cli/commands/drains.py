"""`fal drains`: creates, lists, pauses and deletes receivers of log lines."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, require
from fal_cli.ids import DRAINS as DRAIN_NAMES
from fal_cli.options import add_client_options, add_output_options, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_facts, print_note, shown_time, write_document
from fal_cli.prompts import add_yes_option, confirm, require_secret
from fal_cli.times import describe_duration

if TYPE_CHECKING:
    from fal.api import LogDrain

_FORMATS = ("ndjson", "otlp", "loki")
_LEVELS = ("trace", "debug", "info", "warning", "error")
_CREATE_EPILOG = """\
Examples:
  fal drains create archive https://logs.example/in --signing-key < key.txt
  fal drains create loki https://loki.example/loki/api/v1/push --format loki
  fal drains create otel https://otel.example/v1/logs --format otlp \\
    --header Authorization < token.txt    (keeps the value out of the list of processes)
  fal drains create errors https://logs.example/in --app hello --level error"""


def document(drain: LogDrain) -> dict[str, object]:
    """Return a drain for JSON and YAML."""
    return {
        "name": drain.name,
        "url": drain.url,
        "format": drain.format,
        "apps": list(drain.apps),
        "least_level": drain.least_level.value,
        "header_names": list(drain.header_names),
        "signed": drain.signed,
        "paused": drain.paused,
        "created_at": drain.created_at.isoformat(),
        "sent_lines": drain.sent_lines,
        "lost_lines": drain.lost_lines,
        "unsent_lines": drain.unsent_lines,
        "oldest_unsent_at": _iso(drain.oldest_unsent_at),
        "last_sent_at": _iso(drain.last_sent_at),
        "last_error": drain.last_error,
        "last_error_at": _iso(drain.last_error_at),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _state(drain: LogDrain) -> str:
    return "paused" if drain.paused else "failing" if drain.last_error else "ok"


def _behind(drain: LogDrain) -> str:
    if drain.oldest_unsent_at is None:
        return "-"
    seconds = max((datetime.now(UTC) - drain.oldest_unsent_at).total_seconds(), 0.0)
    return f"{drain.unsent_lines} ({describe_duration(round(seconds))})"


DRAINS: Listing[LogDrain] = Listing(
    noun="drains",
    fields=(
        Field(title="Name", text=lambda drain: drain.name),
        Field(title="Format", text=lambda drain: drain.format),
        Field(title="State", text=_state),
        Field(title="Sent", text=lambda drain: str(drain.sent_lines), sort_key=lambda drain: drain.sent_lines),
        Field(title="Unsent", text=_behind, sort_key=lambda drain: drain.unsent_lines),
        Field(title="Lost", text=lambda drain: str(drain.lost_lines), sort_key=lambda drain: drain.lost_lines),
        Field(title="Last Error", text=lambda drain: drain.last_error or "-", folds=True),
        Field(title="URL", text=lambda drain: drain.url, folds=True, wide=True),
        Field(title="Apps", text=lambda drain: ", ".join(drain.apps) or "all", folds=True, wide=True),
        Field(title="Level", text=lambda drain: drain.least_level.value.lower(), wide=True),
        time_field("Created At", lambda drain: drain.created_at, wide=True),
    ),
    document=document,
    item_name=lambda drain: drain.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal drains` and its sub-commands."""
    commands = add_commands(parser)
    create = add_command(commands, "create", "Send log lines to a receiver.", _create, epilog=_CREATE_EPILOG)
    add_client_options(create)
    create.add_argument("name", metavar="NAME", help="A name for the drain: a-z, 0-9 and hyphens.")
    create.add_argument("url", metavar="URL", help="Where to send the lines: an http or https URL.")
    create.add_argument(
        "--format", choices=_FORMATS, default="ndjson", help="How lines are written (defaults to %(default)s)."
    )
    complete_ids(
        create.add_argument(
            "--app", action="append", default=[], metavar="APP", help="Only lines of this app. May be repeated."
        ),
        APPS,
    )
    create.add_argument(
        "--level", choices=_LEVELS, type=str.lower, help="Only lines of this level and above (defaults to all)."
    )
    create.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="A header of each delivery. A NAME alone reads the value from standard input. May be repeated.",
    )
    create.add_argument(
        "--signing-key",
        action="store_true",
        help="Sign each delivery with HMAC-SHA256, with a key from standard input; at a terminal it is asked for.",
    )
    add_output_options(create)
    list_parser = add_command(commands, "list", "List drains, and how far each is.", _list)
    add_client_options(list_parser)
    add_list_options(list_parser, DRAINS)
    get = add_command(commands, "get", "Show a drain.", _get)
    add_client_options(get)
    add_output_options(get)
    pause = add_command(commands, "pause", "Stop sending; lines wait as long as logs are kept.", _pause)
    add_client_options(pause)
    resume = add_command(commands, "resume", "Go on sending after a pause, or try again at once.", _resume)
    add_client_options(resume)
    delete = add_command(commands, "delete", "Delete a drain, and what it knows of sent lines.", _delete)
    add_client_options(delete)
    add_yes_option(delete)
    for command in (get, pause, resume, delete):
        complete_ids(command.add_argument("name", metavar="NAME", help="Drain's name."), DRAIN_NAMES)


def _create(args: argparse.Namespace) -> None:
    pairs = [text.partition("=") for text in args.header]
    if any(not name for name, _, _ in pairs):
        raise CommandError("a header has no name before '='; use NAME=VALUE", ExitCode.USAGE)
    if sum(not equals for _, equals, _ in pairs) + args.signing_key > 1:
        raise CommandError("only one value can be read from standard input: a header's or the key", ExitCode.USAGE)
    headers = {name: value if equals else require_secret(f"value of {name}") for name, equals, value in pairs}
    signing_key = require_secret("signing key") if args.signing_key else None
    with open_client(args) as client:
        drain = client.drains.create(
            args.name,
            args.url,
            form=args.format,
            apps=args.app,
            least_level=args.level,
            headers=headers,
            signing_key=signing_key,
        )
    for warning in drain.warnings:
        print_note(f"Warning: {warning}")
    print_note(f"Created drain {drain.name}. `fal drains list` shows whether the receiver takes its lines.")
    if args.output != "pretty":
        write_document(args.output, document(drain))


def _list(args: argparse.Namespace) -> None:
    run_list(args, lambda client: client.drains.list(), lambda drains: write_items(args, DRAINS, drains))


def _get(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        drain = client.drains.get(args.name)
    if args.output != "pretty":
        write_document(args.output, document(drain))
        return
    rows = {
        "Name": drain.name,
        "URL": drain.url,
        "Format": drain.format,
        "Apps": ", ".join(drain.apps) or "all",
        "Level": f"{drain.least_level.value.lower()} and above",
        "Headers": ", ".join(drain.header_names) or "-",
        "Signed": "yes" if drain.signed else "no",
        "State": _state(drain),
        "Created at": shown_time(drain.created_at),
        "Sent": f"{drain.sent_lines} lines"
        + (f", last at {shown_time(drain.last_sent_at)}" if drain.last_sent_at else ""),
        "Unsent": _behind(drain),
        "Lost": f"{drain.lost_lines} lines, deleted before they were sent",
        "Last error": f"{drain.last_error} ({shown_time(drain.last_error_at)})" if drain.last_error else "-",
    }
    print_facts(rows.items(), 13)


def _pause(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        client.drains.pause(args.name)
    print_note(f"Paused drain {args.name}. Lines wait for `fal drains resume {args.name}` as long as logs are kept.")


def _resume(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        client.drains.resume(args.name)
    print_note(f"Resumed drain {args.name}.")


def _delete(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: f"Delete drain '{require(client, DRAIN_NAMES, args.name, args)}'?")
        client.drains.delete(args.name)
    print_note(f"Deleted drain {args.name}.")
