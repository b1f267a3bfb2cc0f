"""`fal audit`: shows who changed what, and whether the log is unchanged."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fal_cli.exit_codes import ExitCode
from fal_cli.options import add_client_options, add_output_options, int_type, open_client, time_type
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, write_items
from fal_cli.presentation.output import print_error, print_line, shown_time, write_document

if TYPE_CHECKING:
    from fal.api import AuditEntry

ENTRIES: Listing[AuditEntry] = Listing(
    noun="entries",
    fields=(
        Field(title="At", text=lambda entry: shown_time(entry.at), sort_key=lambda entry: entry.at.timestamp()),
        Field(title="Key", text=lambda entry: entry.key_id[:8]),
        Field(title="Action", text=lambda entry: entry.action, folds=True),
        Field(title="Target", text=lambda entry: entry.target, folds=True),
        Field(title="From", text=lambda entry: entry.source, folds=True),
        Field(title="Number", text=lambda entry: str(entry.number), wide=True),
        Field(title="Key ID", text=lambda entry: entry.key_id, wide=True),
        Field(title="Request", text=lambda entry: entry.request_id, wide=True),
    ),
    document=lambda entry: {
        "number": entry.number,
        "at": entry.at.isoformat(),
        "key_id": entry.key_id,
        "action": entry.action,
        "target": entry.target,
        "source": entry.source,
        "request_id": entry.request_id,
        "digest": entry.digest,
    },
    item_name=lambda entry: str(entry.number),
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal audit` and its sub-commands."""
    commands = add_commands(parser)
    list_parser = add_command(commands, "list", "List changes, the newest first.", _list)
    add_client_options(list_parser)
    list_parser.add_argument(
        "--since", type=time_type(past=True), metavar="WHEN", help="Only changes from a time on, such as 2h or 1 day."
    )
    list_parser.add_argument(
        "--limit", type=int_type, default=100, metavar="N", help="How many at most (defaults to %(default)s)."
    )
    add_list_options(list_parser, ENTRIES)
    verify = add_command(commands, "verify", "Check that no entry was changed or removed.", _verify)
    add_client_options(verify)
    add_output_options(verify)


def _list(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.audit.list(since=args.since, limit=args.limit),
        lambda entries: write_items(args, ENTRIES, entries),
    )


def _verify(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        check = client.audit.verify()
    if args.output != "pretty":
        write_document(args.output, {"entries": check.entries, "broken_at": check.broken_at})
    elif check.broken_at is None:
        print_line(f"The audit log is intact: {check.entries} entries, each consistent with those before it.")
    else:
        print_error(
            f"entry {check.broken_at} of the audit log was changed, or one before it was removed: compare a backup"
        )
    return ExitCode.OK if check.broken_at is None else ExitCode.FAILED
