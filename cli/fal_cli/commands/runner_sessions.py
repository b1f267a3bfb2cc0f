"""`fal runners shell` and `fal runners exec`: commands inside a runner, with this terminal or with plain pipes."""

from __future__ import annotations

import argparse
import sys

from fal_cli.exits import CommandError, ExitCode
from fal_cli.output import note
from fal_cli.parser import FalParser, Subparsers, add_client_options, add_command


def add_commands_to(commands: Subparsers[FalParser]) -> None:
    """Declare `shell` and `exec`."""
    shell = add_command(commands, "shell", "Open a shell on a runner.", _shell)
    shell.description = "Open an interactive shell session inside a running runner."
    add_client_options(shell)
    shell.add_argument("id", help="Runner ID.")
    execute = add_command(commands, "exec", "Execute a command on a runner.", _exec, rest="command")
    add_client_options(execute)
    execute.add_argument("id", help="Runner ID.")
    execute.add_argument("command", nargs="*", help="Command to execute (after `--`).")
    execute.add_argument(
        "-it", "--interactive", action="store_true", help="Allocate a TTY and attach stdin (interactive mode)."
    )


def _shell(args: argparse.Namespace) -> int:
    from fal_cli.remote_command import run

    # A script on standard input ends with end-of-file, which a terminal could not pass on.
    return run(args, [], tty=sys.stdin.isatty(), send_input=True)


def _exec(args: argparse.Namespace) -> int:
    if not args.command:
        raise CommandError("no command is named: fal runners exec ID -- COMMAND", ExitCode.USAGE)
    from fal_cli.remote_command import run

    terminal = sys.stdin.isatty()
    if args.interactive and not terminal:
        note("Standard input is not a terminal: going on without a TTY.")
    # Without -it a terminal is not read, so that the command cannot take what is typed for the next one.
    return run(args, args.command, tty=args.interactive and terminal, send_input=args.interactive or not terminal)
