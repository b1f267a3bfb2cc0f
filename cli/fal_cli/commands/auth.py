"""`fal auth`: shows the caller's identity, and creates login tokens."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fal_cli.options import add_client_options, add_output_options, duration_type, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.output import print_note, shown_time, write_document
from fal_cli.presentation.printable import one_line
from fal_cli.presentation.quotas import shown_use
from fal_cli.registry import STORED_IN_PROFILES

if TYPE_CHECKING:
    from fal.api import Caller, SyncServerlessClient

_EPILOG = """\
This client, and the published one, take it from the second line of ~/.fal/auth0_token if there is no key:

  (echo; fal auth token) > ~/.fal/auth0_token
  fal apps list --team crew"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal auth` and its sub-commands."""
    parser.hint(dict.fromkeys(("login", "logout"), STORED_IN_PROFILES))
    commands = add_commands(parser)
    whoami = add_command(commands, "whoami", "Show your key, its account, what it may do, and the controller.", _whoami)
    add_client_options(whoami)
    add_output_options(whoami)
    token = add_command(
        commands, "token", "Make a login token, which may act for the teams of your account.", _token, epilog=_EPILOG
    )
    add_client_options(token)
    token.add_argument(
        "--expires",
        type=duration_type,
        default="30d",
        metavar="DURATION",
        help="How long it is valid, at most 90d (defaults to %(default)s). It also ends with the key.",
    )
    add_output_options(token)


def _token(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        token = client.keys.login_token(args.expires)
    if args.output != "pretty":
        write_document(args.output, {"token": token.text, "expires_at": token.expires_at.isoformat()})
        return
    print_note(f"A login token, valid until {shown_time(token.expires_at)}. Whoever has it may do what your key may.")
    sys.stdout.write(f"{token.text}\n")


def _whoami(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        caller = client.keys.whoami()
        facts = _facts(client, caller)
    if args.output != "pretty":
        write_document(args.output, facts)
        return
    facts |= {"permissions": ", ".join(caller.permissions), "expires_at": shown_time(caller.expires_at) or "never"}
    if caller.created_at is not None:
        facts["created_at"] = shown_time(caller.created_at)
    del facts["quotas"]
    # A rate applies to each caller, which is this key.
    facts |= {name: shown_use(name, bound, caller.used.get(name)) for name, bound in caller.quotas.items()}
    width = max(map(len, facts))
    for name, value in facts.items():
        if value:
            sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {one_line(str(value))}\n")


def _facts(client: SyncServerlessClient, caller: Caller) -> dict[str, object]:
    settings = client.settings
    return {
        "account": caller.nickname or caller.account,
        "key_id": caller.key_id,
        "description": caller.alias,
        "permissions": list(caller.permissions),
        "created_at": None if caller.created_at is None else caller.created_at.isoformat(),
        "expires_at": None if caller.expires_at is None else caller.expires_at.isoformat(),
        "controller": settings.target.authority,
        "profile": settings.profile,
        "key_from": settings.sources.get("credentials"),
        "quotas": {
            name: {"limit": bound or None, "used": caller.used.get(name)} for name, bound in caller.quotas.items()
        },
    }
