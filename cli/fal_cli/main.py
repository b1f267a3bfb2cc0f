"""The entry point of `fal`. It imports and calls one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fal_cli.interrupts import interrupts

if TYPE_CHECKING:
    import argparse

    from fal_cli.parser import FalParser

_DESCRIPTION = """\
fal deploys Python apps to a controller, on this machine or elsewhere, and calls, watches and manages them."""
_EPILOG = """\
`fal help COMMAND` shows the arguments of a command, `fal up -d` starts a controller.
Documentation: https://github.com/fal-grpc/fal-grpc/tree/main/docs"""


# Local files may have any name.
_LOCAL_PATHS = frozenset({"app_ref", "func_ref"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fal`.

    Args:
        argv: the arguments after the program's name. None takes the process's own and ends the process without
            returning, because shutting down the interpreter and gRPC takes as long as a call.

    Returns:
        The exit code: see `fal_cli.exit_codes.ExitCode`.
    """
    if argv is not None:
        return _run_and_flush(list(argv))
    import gc

    # Nearly all objects of a command live to its end, and collecting at the usual rate costs 10 %.
    gc.set_threshold(100_000, 20, 20)
    code = _run_and_flush(sys.argv[1:])
    # If users' code or a controller ran in this process, its exit handlers and threads must end in order.
    if "fal.deploy" in sys.modules or "fal_server" in sys.modules:
        interrupts.arm()  # the controller's event loop handled the signals
        return code
    import os

    sys.stderr.flush()
    os._exit(code)


def _run_and_flush(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from fal_cli.version import VERSION

        sys.stdout.write(f"{VERSION}\n")
        sys.stdout.flush()
        return 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        from fal_cli.exit_codes import ExitCode

        _drop_output()
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        from fal_cli.presentation.output import print_error

        print_error(f"the output could not be written: {error.strerror}")
        _drop_output()
        return 1
    return code


def build_parser(words: Sequence[str] | None) -> FalParser:
    """Return the parser of `fal`. It has the arguments of the commands that `words` names.

    Args:
        words: the command line, or its start; the modules of other commands are not imported. None means all commands.
    """
    import importlib

    from fal_cli.parser import FalParser, add_commands
    from fal_cli.registry import GROUPS, HINTS
    from fal_cli.version import VERSION

    named = None if words is None else frozenset(words)
    parser = FalParser(prog="fal", description=_DESCRIPTION, epilog=_EPILOG, hints=HINTS, words=named)
    parser.add_argument("--version", action="version", version=VERSION, help="Show fal version.")
    commands = add_commands(parser)
    for command in (command for group in GROUPS.values() for command in group):
        sub = commands.action.add_parser(
            command.name, aliases=command.aliases, help=command.help, description=command.help
        )
        if named is None or not named.isdisjoint((command.name, *command.aliases)):
            module = importlib.import_module(f"fal_cli.commands.{command.module}")
            module.add_arguments(sub)
    parser.group_commands({title: [command.name for command in group] for title, group in GROUPS.items()})
    return parser


def _run(arguments: list[str]) -> int:
    import os

    if "_ARGCOMPLETE" in os.environ:
        from fal_cli.completion import complete

        complete()
    try:
        parser = build_parser(arguments)
    except ImportError as error:  # another package may have overwritten `fal`
        from fal_cli.error_reporting import report

        return report(error, debug=False)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    if (message := _malformed_text(parsed)) is not None:
        from fal_cli.exit_codes import ExitCode
        from fal_cli.presentation.output import print_error

        print_error(message)
        return ExitCode.USAGE
    try:
        code = parsed.handler(parsed)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        from fal_cli.exit_codes import ExitCode

        return ExitCode.INTERRUPTED
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the outermost place: it becomes a message and an exit code
        from fal_cli.error_reporting import report

        return report(error, debug=getattr(parsed, "debug", False))


def _malformed_text(parsed: argparse.Namespace) -> str | None:
    """Return the error for an argument that is not UTF-8. No controller can accept it."""
    for name, value in vars(parsed).items():
        if name in _LOCAL_PATHS:
            continue
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                return f"argument {name.replace('_', '-')}: '{ascii(text)[1:-1]}' is not valid UTF-8"
    return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _drop_output() -> None:
    """Discard buffered output. Flushing it at exit then does not raise again."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(null, sys.stderr.fileno())
    os.close(null)
