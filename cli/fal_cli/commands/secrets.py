"""`fal secrets`: sets, lists and unsets values. Apps get them as environment variables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import SECRETS as SECRET_NAMES
from fal_cli.ids import require
from fal_cli.options import add_client_options, add_env_option, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_note
from fal_cli.prompts import add_yes_option, confirm, read_secret

if TYPE_CHECKING:
    from fal.api import ServerlessSecret

_EXPOSED = {True: "yes", False: "no", None: "account default"}
_SET_EPILOG = """\
Examples:
  fal secrets set HF_TOKEN=hf_***
  fal secrets set HF_TOKEN < token.txt      (keeps the value out of the list of processes)
  fal secrets set HF_TOKEN                  (at a terminal: asks for it, unseen)"""


SECRETS: Listing[ServerlessSecret] = Listing(
    noun="secrets",
    fields=(
        Field(title="Name", text=lambda secret: secret.name),
        Field(title="Env", text=lambda secret: secret.environment_name or "main"),
        time_field("Created At", lambda secret: secret.created_at),
        Field(title="Exposed By Default", text=lambda secret: _EXPOSED[secret.default_exposed], folds=True),
    ),
    document=lambda secret: {
        "name": secret.name,
        "environment": secret.environment_name,
        "created_at": str(secret.created_at) if secret.created_at else None,
        "default_exposed": secret.default_exposed,
    },
    item_name=lambda secret: secret.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal secrets` and its sub-commands."""
    commands = add_commands(parser)
    set_parser = add_command(commands, "set", "Set a secret.", _set, epilog=_SET_EPILOG)
    add_client_options(set_parser)
    set_parser.add_argument(
        "secrets",
        nargs="+",
        metavar="NAME=VALUE",
        help="Secret NAME=VALUE pairs. A NAME alone reads the value from standard input.",
    )
    set_parser.add_argument(
        "--not-exposed-by-default",
        action="store_true",
        help="Give the secret only to apps that list it in their secrets.",
    )
    add_env_option(set_parser)
    list_parser = add_command(commands, "list", "List secrets.", _list)
    add_client_options(list_parser)
    add_env_option(list_parser)
    add_list_options(list_parser, SECRETS)
    unset = add_command(commands, "unset", "Unset a secret.", _unset)
    add_client_options(unset)
    add_yes_option(unset)
    complete_ids(unset.add_argument("name", metavar="NAME", help="Secret's name."), SECRET_NAMES)
    add_env_option(unset)


def _set(args: argparse.Namespace) -> None:
    pairs = [text.partition("=") for text in args.secrets]
    unnamed = [text for text, (name, _, _) in zip(args.secrets, pairs, strict=True) if not name]
    if unnamed:
        raise CommandError("a secret has no name before '='; use NAME=VALUE", ExitCode.USAGE)
    if sum(not equals for _, equals, _ in pairs) > 1:
        raise CommandError("only one secret can be read from standard input at a time", ExitCode.USAGE)
    values = [(name, value if equals else _read(name)) for name, equals, value in pairs]
    with open_client(args) as client:
        for name, value in values:
            client.secrets.set(name, value, environment_name=args.env, default_exposed=not args.not_exposed_by_default)
            print_note(f"Set secret {name}.")
    print_note("Runners that start from now on get it; `fal apps rollout APP` replaces the running ones of an app.")


def _read(name: str) -> str:
    value = read_secret(f"Value of {name}: ")
    if not value:
        raise CommandError(f"the value of {name} is empty; `fal secrets unset {name}` removes a secret")
    return value


def _list(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.secrets.list(environment_name=args.env),
        lambda secrets: write_items(args, SECRETS, secrets),
    )


def _unset(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: f"Unset secret '{require(client, SECRET_NAMES, args.name, args)}'?")
        client.secrets.unset(args.name, environment_name=args.env)
    print_note(f"Unset secret {args.name}. Runners that have it keep it until they end.")
