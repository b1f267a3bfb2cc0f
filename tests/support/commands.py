"""The commands of `fal`, found in its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from fal_cli.main import build_parser
from fal_cli.parser import FalParser, UnusedParser


def all_commands() -> Iterator[tuple[tuple[str, ...], FalParser]]:
    """Yield each command: its words, such as `("runners", "list")`, and its parser."""
    yield from commands_of(None)


def commands_of(words: Sequence[str] | None) -> Iterator[tuple[tuple[str, ...], FalParser]]:
    """Yield the commands of a command line's parser, as `all_commands`."""
    yield from _below((), build_parser(words))


def _below(path: tuple[str, ...], parser: FalParser) -> Iterator[tuple[tuple[str, ...], FalParser]]:
    actions = (
        []
        if isinstance(parser, UnusedParser)
        else [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    )
    if not actions:
        yield path, parser
    for action in actions:
        seen: list[FalParser] = []
        for name, below in action.choices.items():
            if below not in seen:  # an alias is the same parser
                seen.append(below)
                yield from _below((*path, name), below)
