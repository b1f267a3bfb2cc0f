"""`fal environments`: lists, creates and deletes the spaces that apps and secrets live in."""

from __future__ import annotations

import argparse
import sys

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.options import add_client_options, add_output_options, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.output import print_line, write_list, write_table
from fal_cli.presentation.printable import visible
from fal_cli.presentation.table import Column

_COLUMNS = (
    Column(title="Name"),
    Column(title="Description", folds=True),
    Column(title="Default"),
    Column(title="Created At", folds=True),
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal environments` and its sub-commands."""
    commands = add_commands(parser)
    list_parser = add_command(commands, "list", "List environments.", _list)
    add_client_options(list_parser)
    add_output_options(list_parser)
    create = add_command(commands, "create", "Create an environment.", _create)
    add_client_options(create)
    create.add_argument("name", help="Environment name.")
    create.add_argument("--description", help="What the environment is for.")
    delete = add_command(commands, "delete", "Delete an environment.", _delete)
    add_client_options(delete)
    delete.add_argument("name", help="Environment name.")
    delete.add_argument("--yes", action="store_true", help="Do not ask.")


def _list(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        environments = client.environments.list()
    if args.output == "pretty":
        rows = (
            (
                environment.name,
                environment.description or "",
                "yes" if environment.is_default else "",
                str(environment.created_at),
            )
            for environment in environments
        )
        write_table(_COLUMNS, rows)
        return
    write_list(
        args.output,
        "environments",
        (
            {
                "name": environment.name,
                "description": environment.description,
                "is_default": environment.is_default,
                "created_at": str(environment.created_at),
            }
            for environment in environments
        ),
    )


def _create(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        created = client.environments.create(args.name, description=args.description)
    print_line(f"Created environment '{created.name}'")


def _delete(args: argparse.Namespace) -> None:
    if not args.yes:
        if not sys.stdin.isatty():
            raise CommandError(f"deleting environment '{args.name}' needs a confirmation: add --yes", ExitCode.USAGE)
        sys.stderr.write(visible(f"This deletes environment '{args.name}' and its secrets. Type its name: "))
        sys.stderr.flush()
        if sys.stdin.readline().strip() != args.name:
            print_line("Deletion cancelled")
            return
    with open_client(args) as client:
        client.environments.delete(args.name)
    print_line(f"Deleted environment '{args.name}'")
