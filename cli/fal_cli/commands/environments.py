"""`fal environments`: lists, creates and deletes separate sets of apps and secrets."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.ids import ENVIRONMENTS as ENVIRONMENT_NAMES
from fal_cli.ids import require
from fal_cli.options import add_client_options, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_line
from fal_cli.prompts import add_yes_option, confirm

if TYPE_CHECKING:
    from fal.api import EnvironmentInfo

ENVIRONMENTS: Listing[EnvironmentInfo] = Listing(
    noun="environments",
    fields=(
        Field(title="Name", text=lambda environment: environment.name),
        Field(title="Description", text=lambda environment: environment.description or "", folds=True),
        Field(title="Default", text=lambda environment: "yes" if environment.is_default else ""),
        time_field("Created At", lambda environment: environment.created_at),
    ),
    document=lambda environment: {
        "name": environment.name,
        "description": environment.description,
        "is_default": environment.is_default,
        "created_at": str(environment.created_at),
    },
    item_name=lambda environment: environment.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal environments` and its sub-commands."""
    commands = add_commands(parser)
    list_parser = add_command(commands, "list", "List environments.", _list)
    add_client_options(list_parser)
    add_list_options(list_parser, ENVIRONMENTS)
    create = add_command(commands, "create", "Create an environment.", _create)
    add_client_options(create)
    create.add_argument("name", help="Environment name.")
    create.add_argument("--description", help="What the environment is for.")
    delete = add_command(commands, "delete", "Delete an environment.", _delete)
    add_client_options(delete)
    complete_ids(delete.add_argument("name", help="Environment name."), ENVIRONMENT_NAMES)
    add_yes_option(delete)


def _list(args: argparse.Namespace) -> None:
    run_list(args, lambda client: client.environments.list(), lambda found: write_items(args, ENVIRONMENTS, found))


def _create(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        created = client.environments.create(args.name, description=args.description)
    print_line(f"Created environment '{created.name}'")


def _delete(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(
            args,
            lambda: f"Delete environment '{require(client, ENVIRONMENT_NAMES, args.name, args)}' and its secrets?",
        )
        client.environments.delete(args.name)
    print_line(f"Deleted environment '{args.name}'")
