"""`fal help`: shows the help of fal or of a command."""

from __future__ import annotations

import argparse

from fal_cli.completion import complete_words
from fal_cli.parser import FalParser


def add_arguments(parser: FalParser) -> None:
    """Declare `fal help`."""
    from fal_cli.registry import COMMANDS

    parser.description = "Show the help of fal, or of a command: `fal help runners exec` is `fal runners exec --help`."
    words = parser.add_argument("words", nargs="*", metavar="command", help="The command.")
    complete_words(words, lambda: [command.name for command in COMMANDS])
    parser.set_defaults(handler=_help)


def _help(args: argparse.Namespace) -> int:
    from fal_cli.main import build_parser

    try:
        build_parser(args.words).parse_args([*args.words, "--help"])
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0
