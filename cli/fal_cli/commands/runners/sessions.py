"""`fal runners shell`, `exec`, `attach` and `execs`: run commands inside a runner."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import EXECS as EXEC_IDS
from fal_cli.ids import RUNNERS, resolve
from fal_cli.options import add_client_options, seconds_type
from fal_cli.parser import Commands, FalParser, add_command
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_line, print_note
from fal_cli.presentation.printable import one_line

if TYPE_CHECKING:
    from fal.api import ExecInfo

_ATTACH = "Attach to a command on a runner; its output starts with the oldest that is kept."
_EXECS = "List the commands on runners that run or ended within the last ten minutes."


def add_commands_to(commands: Commands) -> None:
    """Declare `shell`, `exec`, `attach` and `execs`."""
    shell = add_command(commands, "shell", "Open a shell on a runner.", _shell)
    shell.description = "Open an interactive shell session inside a running runner."
    add_client_options(shell)
    complete_ids(shell.add_argument("id", help="Runner ID."), RUNNERS)
    shell.set_defaults(timeout=None, cwd=None, env=[], keep=False)
    execute = add_command(commands, "exec", "Execute a command on a runner.", _exec, rest="command")
    add_client_options(execute)
    complete_ids(execute.add_argument("id", help="Runner ID."), RUNNERS)
    execute.add_argument("command", nargs="*", help="Command to execute (after `--`).")
    execute.add_argument(
        "-it", "--interactive", action="store_true", help="Allocate a TTY and attach stdin (interactive mode)."
    )
    _add_own_options(execute)
    attach = add_command(commands, "attach", _ATTACH, _attach, published=False)
    add_client_options(attach)
    exec_id = attach.add_argument("exec_id", metavar="exec-id", help="Exec ID, from `exec --detach` or `execs`.")
    complete_ids(exec_id, EXEC_IDS)
    runner = attach.add_argument("--runner", metavar="ID", help="Runner ID (defaults to a search on all runners).")
    complete_ids(runner, RUNNERS)
    execs = add_command(commands, "execs", _EXECS, _execs, published=False)
    add_client_options(execs)
    complete_ids(execs.add_argument("id", nargs="?", help="Runner ID (defaults to all runners)."), RUNNERS)
    add_list_options(execs, EXECS)


def _add_own_options(parser: FalParser) -> None:
    parser.beyond(
        parser.add_argument("--timeout", type=seconds_type, metavar="SECONDS", help="End the command after this time.")
    )
    parser.beyond(parser.add_argument("--cwd", metavar="DIR", help="Directory to run in; defaults to the app's."))
    parser.beyond(
        parser.add_argument(
            "--env",
            type=_variable,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Set an environment variable. May be repeated.",
        )
    )
    parser.beyond(
        parser.add_argument(
            "--keep", action="store_true", help="Keep the command running if the connection is lost for good."
        )
    )
    parser.beyond(
        parser.add_argument(
            "--detach", action="store_true", help="Print the command's id and return; `attach` follows it."
        )
    )


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
        print_note("Standard input is not a terminal: continuing without a TTY.")
    # Without -it a terminal is not read: input typed meanwhile is for the next command.
    return run(args, args.command, tty=args.interactive and terminal, send_input=args.interactive or not terminal)


def _attach(args: argparse.Namespace) -> int:
    from fal_cli.terminal.remote_command import attach

    return attach(args)


def _execs(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.runners.execs(args.id and resolve(client, RUNNERS, args.id, args)),
        lambda found: write_items(args, EXECS, found),
    )


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


def _state(found: ExecInfo) -> str:
    if found.exit_code is None:
        return "running, attached" if found.attached else "running"
    return f"exited {found.exit_code}"


def _command_line(found: ExecInfo) -> str:
    import shlex

    line = one_line(shlex.join(found.command)) if found.command else "(login shell)"
    return line if len(line) <= 60 else f"{line[:57]}..."


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


EXECS: Listing[ExecInfo] = Listing(
    noun="execs",
    fields=(
        Field(title="Exec ID", shortens=True, text=lambda found: found.exec_id),
        Field(title="Runner ID", shortens=True, text=lambda found: found.runner_id),
        Field(title="State", text=_state, folds=True),
        time_field("Started", lambda found: found.started_at),
        Field(
            title="Output Bytes",
            text=lambda found: f"{found.output_bytes:,}",
            sort_key=lambda found: found.output_bytes,
            folds=True,
        ),
        Field(title="Command", text=_command_line, folds=True),
    ),
    document=_document,
    item_name=lambda found: found.exec_id,
)
