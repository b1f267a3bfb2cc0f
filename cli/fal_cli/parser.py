"""The parsers of fal's commands, and their errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from fal_cli.exit_codes import ExitCode
from fal_cli.help_format import HelpFormatter
from fal_cli.presentation.output import print_error

# The least similarity of two words for a suggestion, 0 to 1.
_NEAR = 0.7
# There are few options, and most mistakes in short ones swap two letters.
_NEAR_OPTION = 0.6
Handler = Callable[[argparse.Namespace], int | None]
# argparse has no public name for the result of add_subparsers.
_Subparsers = argparse._SubParsersAction  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


class FalParser(argparse.ArgumentParser):
    """Parses a command in fal's help format. Options must be written out in full.

    Args:
        handler: takes the parsed arguments and returns the exit code; None counts as 0.
        rest: the name of a positional argument of nargs="*" that also gets every word after `--`, unchanged; options
        may
            stand anywhere before `--`.
        hints: messages for words that are not commands but that people try.
        words: the words of the command line; commands not among them only have a name and a line of help. None declares
            all in full.
    """

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        handler: Handler | None = None,
        rest: str | None = None,
        hints: Mapping[str, str] | None = None,
        words: frozenset[str] | None = None,
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self._rest = rest
        self._hints = hints or {}
        self.words = words
        self._groups: Mapping[str, Sequence[str]] = {}
        self._beyond: list[argparse.Action] = []
        self._positionals.title = "Positional Arguments"
        self._optionals.title = "Options"
        # SUPPRESS as default: otherwise the child's default would overwrite the parent's value.
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if handler is not None:
            self.set_defaults(handler=handler)

    def hint(self, hints: Mapping[str, str]) -> None:
        """Add messages for words that are not commands but that people try."""
        self._hints = hints

    def beyond(self, action: argparse.Action) -> None:
        """Move an option's help into a block after the published text. That text must stay word for word."""
        self._beyond.append(copy(action))
        action.help = argparse.SUPPRESS

    def format_help(self) -> str:
        """Return the help text. It has commands in their groups, and a block for additions to the published command."""
        text = self._format_groups() if self._groups else super().format_help()
        if not self._beyond:
            return text
        formatter = self._get_formatter()
        formatter.start_section("Beyond the published command")
        formatter.add_arguments(self._beyond)
        formatter.end_section()
        return f"{text}\n{formatter.format_help()}"

    def group_commands(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Show the commands in groups: title -> names."""
        self._groups = groups

    def _format_groups(self) -> str:
        (commands,) = (action for action in self._actions if action.nargs == argparse.PARSER)
        lines = {line.dest: line for line in commands._get_subactions()}  # type: ignore[attr-defined]  # noqa: SLF001
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, names in self._groups.items():
            formatter.start_section(title)
            formatter.add_arguments([lines[name] for name in names])
            formatter.end_section()
        formatter.start_section(self._optionals.title)
        formatter.add_arguments(self._optionals._group_actions)  # noqa: SLF001
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse. Reject unknown arguments with the usage of the command that got them."""
        words = list(sys.argv[1:] if args is None else args)
        tail: list[str] = []
        separated = "--" in words
        end = words.index("--") if separated else len(words)
        if self._rest is not None:
            # argparse would give `ID -it -- COMMAND` an empty command, and drop a second `--`.
            words, tail = self._flags_first(words[:end]), words[end + 1 :]
        elif any(action.nargs == "*" for action in self._get_positional_actions()):
            # argparse would parse `APP --direct key=value` as an app without arguments and one word too many.
            words = self._flags_first(words[:end]) + words[end:]
        self._refuse_unknown_options(words[: words.index("--")] if "--" in words else words)
        parsed, unknown = super().parse_known_args(words, namespace or argparse.Namespace())
        if unknown:
            before = " before --" if self._rest is not None and separated else ""
            hint = "; the command goes after --" if self._rest is not None and not separated else ""
            self.error(f"unrecognized arguments{before}: {' '.join(unknown)}{hint}")
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

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Reject a misspelt option by its name. Otherwise argparse reports an argument that seems to be missing."""
        has_commands = False
        for action in self._get_positional_actions():
            if action.nargs == argparse.REMAINDER:
                return
            has_commands = has_commands or action.nargs == argparse.PARSER
        for word in words:
            if has_commands and not word.startswith("-"):
                return  # the rest belongs to the command
            name = word.partition("=")[0]
            if not name.startswith("--") or " " in name or name in self._option_string_actions:
                continue
            known = [option for option in self._option_string_actions if option.startswith("--")]
            longer = [option for option in known if option.startswith(name)]
            if near := longer[:1] or _nearest(name, known, _NEAR_OPTION):
                self.error(f"unknown option {name}; did you mean {near[0]}?")
            if has_commands:
                self.error(f"unknown option {name}; the options of a command go after its name")
            if self._rest is None:  # otherwise the word may belong to the command, which goes after --
                self.error(f"unknown option {name}")

    def error(self, message: str) -> NoReturn:
        """Write usage and the error to standard error. Exit with the code for wrong usage."""
        self.print_usage(sys.stderr)
        print_error(f"{message}\nSee '{self.prog} --help'.")
        raise SystemExit(ExitCode.USAGE)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Reject an unknown command, and name the nearest known one."""
        if action.nargs != argparse.PARSER or action.choices is None or value in action.choices:
            super()._check_value(action, value)
            return
        known = [str(choice) for choice in action.choices]
        if str(value) in self._hints:
            hint = f": {self._hints[str(value)]}"
        elif near := _nearest(str(value), known, _NEAR):
            hint = f"; did you mean '{near[0]}'?"
        elif self._groups:
            hint = f"; `{self.prog} help` lists the commands"
        else:
            hint = f"; choose from {', '.join(known)}"
        raise argparse.ArgumentError(None, f"unknown command '{value}'{hint}")


def _nearest(word: str, known: Sequence[str], cutoff: float) -> list[str]:
    """Return the most similar known word, or nothing."""
    from difflib import get_close_matches

    bare = {option.lstrip("-"): option for option in known}
    return [bare[near] for near in get_close_matches(word.lstrip("-").lower(), bare, n=1, cutoff=cutoff)]


class UnusedParser(FalParser):
    """Accepts and ignores the declarations of a command. The command line does not name it.

    A parser takes time to build, and a command line uses one of dozens.
    """

    def __init__(self, **_: object) -> None:
        self.words = frozenset()

    def __repr__(self) -> str:
        """Return a text without the parser's attributes. They are missing, and completion calls this."""
        return "UnusedParser()"

    def add_argument(self, *_: object, **__: object) -> argparse.Action:
        return argparse.Action((), dest="")

    def beyond(self, action: argparse.Action) -> None:
        """Ignore the option."""

    def set_defaults(self, **_: object) -> None:
        """Ignore the defaults."""

    def add_argument_group(self, *_: object, **__: object) -> Self:  # type: ignore[override]  # it takes the same
        return self

    def add_mutually_exclusive_group(self, **_: object) -> Self:  # type: ignore[override]  # as above
        return self

    def add_subparsers(self, **_: object) -> _Subparsers[FalParser]:  # type: ignore[override]  # as above
        return _Subcommands((), prog="", parser_class=UnusedParser)


if TYPE_CHECKING:
    _Base = _Subparsers[FalParser]
else:
    _Base = _Subparsers  # argparse has no generic class


class _Subcommands(_Base):
    """The commands of a parser. Those that its words do not name only have a name and a line of help."""

    words: frozenset[str] | None = frozenset()

    def add_parser(  # type: ignore[override]  # it takes the options of FalParser
        self, name: str, *, aliases: Sequence[str] = (), **options: object
    ) -> FalParser:
        used = self.words is None or not self.words.isdisjoint((name, *aliases))
        if used:
            options["words"] = self.words
        self._parser_class = FalParser if used else UnusedParser
        return super().add_parser(name, aliases=aliases, **options)  # type: ignore[arg-type]  # as above


class Commands(NamedTuple):
    """The sub-commands of a parser."""

    parser: FalParser
    action: _Subparsers[FalParser]


def add_commands(parser: FalParser) -> Commands:
    """Give `parser` sub-commands; the command line must name one."""
    action = parser.add_subparsers(
        title="Commands",
        metavar="command",
        dest="subcommand",
        required=True,
        parser_class=FalParser,
        action=_Subcommands,
    )
    assert isinstance(action, _Subcommands)
    action.words = parser.words
    return Commands(parser, action)


def add_command(
    commands: Commands,
    name: str,
    help: str,  # noqa: A002 - argparse's word
    handler: Handler,
    *,
    aliases: Sequence[str] = (),
    epilog: str | None = None,
    rest: str | None = None,
    published: bool = True,
) -> FalParser:
    """Add a sub-command.

    Args:
        help: one line for the list of commands and for the command's own page.
        published: whether the published client has the command; if not, it is listed after the published help text.
    """
    if not published:
        commands.parser.beyond(argparse.Action((), dest=name, metavar=name, help=help))
        return commands.action.add_parser(
            name, aliases=aliases, description=help, epilog=epilog, handler=handler, rest=rest
        )
    return commands.action.add_parser(
        name, aliases=aliases, help=help, description=help, epilog=epilog, handler=handler, rest=rest
    )
