"""The parsers of fal's commands: their errors, and the options that many of them share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from fal_cli.exit_codes import ExitCode
from fal_cli.help_format import HelpFormatter
from fal_cli.presentation.output import FORMATS, complain

if TYPE_CHECKING:
    from datetime import datetime, timedelta

Handler = Callable[[argparse.Namespace], int | None]
# argparse has no public name for what add_subparsers returns.
Subparsers = argparse._SubParsersAction  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

# A clock that is a little off, or a command that took a moment to type, is no reason to refuse `--since 24h`.
_LEEWAY_SECONDS = 60


class FalParser(argparse.ArgumentParser):
    """An ArgumentParser with fal's help format and errors; flags must be written out in full.

    Args:
        handler: what the command calls with the parsed arguments; its result is the exit code, None for 0.
        rest: the name of a positional argument of nargs="*" that also gets every word after `--`, as it is; flags may
            then stand anywhere before that.
    """

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        handler: Handler | None = None,
        rest: str | None = None,
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self._rest = rest
        self._positionals.title = "Positional Arguments"
        self._optionals.title = "Options"
        # SUPPRESS as default: what a parent parser was given is not overwritten by a child's default.
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if handler is not None:
            self.set_defaults(handler=handler)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse unknown arguments with the usage of the command that got them."""
        words = list(sys.argv[1:] if args is None else args)
        tail: list[str] = []
        end = words.index("--") if "--" in words else len(words)
        if self._rest is not None:
            # argparse alone would give an empty command to `ID -it -- COMMAND`, and drop a second `--`.
            words, tail = self._flags_first(words[:end]), words[end + 1 :]
        elif any(action.nargs == "*" for action in self._get_positional_actions()):
            # argparse alone would take `APP --direct key=value` for an app without arguments, and one word too many.
            words = self._flags_first(words[:end]) + words[end:]
        parsed, unknown = super().parse_known_args(words, namespace or argparse.Namespace())
        if unknown:
            hint = "; the command goes after --" if self._rest is not None else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        if self._rest is not None:
            setattr(parsed, self._rest, [*getattr(parsed, self._rest), *tail])
        return parsed, unknown

    def _flags_first(self, words: Sequence[str]) -> list[str]:
        flags: list[str] = []
        others: list[str] = []
        remaining = iter(words)
        for word in remaining:
            if word == "-" or not word.startswith("-"):
                others.append(word)
                continue
            flags.append(word)
            action = self._option_string_actions.get(word)
            if action is not None and action.nargs is None:
                flags += [value for value in [next(remaining, None)] if value is not None]
        return flags + others

    def error(self, message: str) -> NoReturn:
        """Write usage, the error and where help is to standard error, and exit with the code for wrong usage."""
        self.print_usage(sys.stderr)
        complain(f"{message}\nSee '{self.prog} --help'.")
        raise SystemExit(ExitCode.USAGE)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse an unknown command with the nearest known one."""
        if action.nargs != argparse.PARSER or action.choices is None or value in action.choices:
            super()._check_value(action, value)
            return
        from difflib import get_close_matches

        known = [str(choice) for choice in action.choices]
        near = get_close_matches(str(value), known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; choose from {', '.join(known)}"
        raise argparse.ArgumentError(None, f"unknown command '{value}'{hint}")


def add_commands(parser: FalParser) -> Subparsers[FalParser]:
    """Give `parser` sub-commands, one of which must be named."""
    return parser.add_subparsers(
        title="Commands", metavar="command", dest="subcommand", required=True, parser_class=FalParser
    )


def add_command(
    subparsers: Subparsers[FalParser],
    name: str,
    help: str,  # noqa: A002 - argparse's word
    handler: Handler,
    *,
    aliases: Sequence[str] = (),
    epilog: str | None = None,
    rest: str | None = None,
    listed: bool = True,
) -> FalParser:
    """Add a sub-command of which `help` is the one line in the list and the description on its own page.

    Args:
        listed: whether it is in the list; those of `fal runners` that only docs/reference/cli.md names are not.
    """
    if not listed:
        return subparsers.add_parser(name, aliases=aliases, description=help, handler=handler, rest=rest)
    return subparsers.add_parser(
        name, aliases=aliases, help=help, description=help, epilog=epilog, handler=handler, rest=rest
    )


def add_client_options(parser: FalParser) -> None:
    """Add what every command that calls the controller takes: --team, and the hidden --host."""
    parser.add_argument("--team", help="The team to use.")
    parser.add_argument("--host", help=argparse.SUPPRESS)


def add_output_options(parser: FalParser) -> None:
    """Add --output and --json. The help names the two forms that published clients have; see docs/reference/cli.md."""
    group = parser.add_argument_group("Output")
    group.add_argument(
        "--output", choices=FORMATS, metavar="{pretty,json}", default="pretty", help="Modify the command output"
    )
    group.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="output",
        help="Output in JSON format (same as --output json)",
    )


def add_env_option(parser: FalParser) -> None:
    """Add --env, which FAL_ENV stands in for."""
    parser.add_argument(
        "--env",
        default=os.environ.get("FAL_ENV") or None,
        help="Target environment (defaults to main). Can also be set via FAL_ENV environment variable.",
    )


def moment_type(*, at_most: timedelta | None = None) -> Callable[[str], datetime]:
    """Return an argparse type that reads a moment.

    Args:
        at_most: how far back it may be; unlimited where None.
    """

    def moment(text: str) -> datetime:
        from datetime import UTC, datetime, timedelta

        from fal_cli.times import parse_moment

        try:
            parsed = parse_moment(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if at_most is not None and datetime.now(UTC) - parsed > at_most + timedelta(seconds=_LEEWAY_SECONDS):
            hours = at_most.total_seconds() / 3600
            raise argparse.ArgumentTypeError(f"'{text}' is older than the limit of {hours:g} hours")
        return parsed

    return moment
