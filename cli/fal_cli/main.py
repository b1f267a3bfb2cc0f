"""The entry point of `fal`: finds the command, imports its module and nothing else, calls it, and turns what goes wrong
into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fal_cli.version import VERSION

if TYPE_CHECKING:
    from fal_cli.parser import FalParser

_EPILOG = """\
Commands that list take --output pretty|json|yaml|jsonl.
`fal up -d` starts a controller on this machine; `fal COMMAND --help` says more about a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fal`.

    Args:
        argv: the arguments after the program's name; the process's own where None.

    Returns:
        The exit code: see `fal_cli.exits.ExitCode`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    return code


def build_parser(words: Sequence[str]) -> FalParser:
    """Return the parser of `fal`, with the arguments of those commands that `words` name.

    Args:
        words: the command line, or what is typed of it; only modules of commands that are in it are imported.
    """
    import importlib

    from fal_cli.parser import FalParser, add_commands
    from fal_cli.registry import COMMANDS

    parser = FalParser(prog="fal", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=VERSION, help="Show fal version.")
    commands = add_commands(parser)
    named = set(words)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, aliases=command.aliases, help=command.help, description=command.help)
        if not named.isdisjoint((command.name, *command.aliases)):
            module = importlib.import_module(f"fal_cli.commands.{command.module}")
            module.add_arguments(sub)
    return parser


def _run(arguments: list[str]) -> int:
    import os

    if "_ARGCOMPLETE" in os.environ:
        from fal_cli.completing import complete

        complete()
    parser = build_parser(arguments)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    try:
        code = parsed.handler(parsed)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        from fal_cli.exits import ExitCode

        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost place: it becomes a message and an exit code
        from fal_cli.failures import report

        return report(error, debug=getattr(parsed, "debug", False))


def _broken_pipe() -> int:
    """Stop quietly when the reader of the output went away, as `head` does; 141 is what a shell shows for SIGPIPE."""
    import os

    from fal_cli.exits import ExitCode

    # What is still in the buffer must not raise again when the interpreter flushes at its end.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return ExitCode.BROKEN_PIPE
