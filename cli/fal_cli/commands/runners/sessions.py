"""`fal runners shell`, `exec`, `attach` and `execs`: run commands inside a runner."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.options import add_client_options, add_output_options, open_client, seconds_type
from fal_cli.parser import FalParser, Subparsers, add_command
from fal_cli.presentation.output import print_line, print_note, write_list, write_table
from fal_cli.presentation.printable import one_line

if TYPE_CHECKING:
    from fal_grpc.adapter.execs import ExecInfo

_ATTACH = "Attach to a command on a runner; its output starts with the oldest that is kept."
_EXECS = "List the commands on runners that run or ended within the last ten minutes."


def add_commands_to(commands: Subparsers[FalParser]) -> None:
    """Declare `shell`, `exec`, `attach` and `execs`."""
    shell = add_command(commands, "shell", "Open a shell on a runner.", _shell)
    shell.description = "Open an interactive shell session inside a running runner."
    add_client_options(shell)
    shell.add_argument("id", help="Runner ID.")
    shell.set_defaults(timeout=None, cwd=None, env=[], keep=False)
    execute = add_command(commands, "exec", "Execute a command on a runner.", _exec, rest="command")
    add_client_options(execute)
    execute.add_argument("id", help="Runner ID.")
    execute.add_argument("command", nargs="*", help="Command to execute (after `--`).")
    execute.add_argument(
        "-it", "--interactive", action="store_true", help="Allocate a TTY and attach stdin (interactive mode)."
    )
    _add_own_options(execute)
    attach = add_command(commands, "attach", _ATTACH, _attach, listed=False)
    add_client_options(attach)
    attach.add_argument("exec_id", metavar="exec-id", help="Exec ID, as `exec --detach` and `execs` print it.")
    attach.add_argument("--runner", metavar="ID", help="Runner ID. Default: look on all runners.")
    execs = add_command(commands, "execs", _EXECS, _execs, listed=False)
    add_client_options(execs)
    execs.add_argument("id", nargs="?", help="Runner ID. Default: all runners.")
    add_output_options(execs)


def _add_own_options(parser: FalParser) -> None:
    """Add the options that the published client lacks; its help must stay word for word."""
    hidden = argparse.SUPPRESS
    parser.add_argument("--timeout", type=seconds_type, help=hidden)
    parser.add_argument("--cwd", help=hidden)
    parser.add_argument("--env", type=_variable, action="append", default=[], help=hidden)
    parser.add_argument("--keep", action="store_true", help=hidden)
    parser.add_argument("--detach", action="store_true", help=hidden)


def _shell(args: argparse.Namespace) -> int:
    from fal_cli.terminal.remote_command import run

    # A script on standard input ends with end-of-file, which a terminal cannot pass on.
    return run(args, [], tty=sys.stdin.isatty(), send_input=True)


def _exec(args: argparse.Namespace) -> int:
    if not args.command:
        raise CommandError("no command is named: fal runners exec ID -- COMMAND", ExitCode.USAGE)
    from fal_cli.terminal.remote_command import run, start

    if args.detach:
        print_line(start(args))
        return ExitCode.OK
    terminal = sys.stdin.isatty()
    if args.interactive and not terminal:
        print_note("Standard input is not a terminal: going on without a TTY.")
    # Without -it a terminal is not read: what is typed then is for the next command.
    return run(args, args.command, tty=args.interactive and terminal, send_input=args.interactive or not terminal)


def _attach(args: argparse.Namespace) -> int:
    from fal_cli.terminal.remote_command import attach

    return attach(args)


def _execs(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        found = client.runners.execs(args.id)
    if args.output != "pretty":
        write_list(args.output, "execs", map(_document, found))
        return
    from fal_cli.presentation.table import Column

    titles = ("Exec ID", "Runner ID", "State", "Started", "Output Bytes", "Command")
    write_table([Column(title=title) for title in titles], map(_row, found))


def _document(found: ExecInfo) -> dict[str, object]:
    return {
        "exec_id": found.exec_id,
        "runner_id": found.runner_id,
        "command": list(found.command),
        "tty": found.tty,
        "keep": found.keep,
        "attached": found.attached,
        "started_at": found.started_at.isoformat(),
        "ended_at": found.ended_at.isoformat() if found.ended_at else None,
        "exit_code": found.exit_code,
        "output_bytes": found.output_bytes,
    }


def _row(found: ExecInfo) -> tuple[str, ...]:
    import shlex

    if found.exit_code is None:
        state = "running, attached" if found.attached else "running"
    else:
        state = f"exited {found.exit_code}"
    started = found.started_at.astimezone().isoformat(sep=" ", timespec="seconds")
    words = one_line(shlex.join(found.command)) if found.command else "(login shell)"
    shown = words if len(words) <= 60 else f"{words[:57]}..."
    return found.exec_id, found.runner_id, state, started, f"{found.output_bytes:,}", shown


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
