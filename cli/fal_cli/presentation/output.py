"""Writes results to standard output and messages to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fal_cli.presentation.printable import visible
from fal_cli.presentation.style import paint, wants_colour

if TYPE_CHECKING:
    from fal_cli.presentation.table import Column

FORMATS = ("pretty", "json", "yaml", "jsonl")


def write_list(form: str, key: str, items: Iterable[Mapping[str, object]]) -> None:
    """Write a list in a form for programs.

    Args:
        form: `json` and `yaml` write one document `{key: [...]}`, `jsonl` one item a line.
        key: the name of the list in the document.
        items: the items.
    """
    if form == "jsonl":
        for item in items:
            write_line(item)
    else:
        write_document(form, {key: list(items)})


def write_document(form: str, document: Mapping[str, object]) -> None:
    """Write one document: `yaml` as YAML, `json` and `jsonl` as one line of JSON."""
    if form == "yaml":
        import yaml

        yaml.safe_dump(document, sys.stdout, sort_keys=False, default_flow_style=False)
    else:
        write_line(document)


def write_line(item: object) -> None:
    """Write one line of JSON. It is ASCII, so that nothing in it can act on a terminal."""
    import json

    sys.stdout.write(json.dumps(item) + "\n")


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Write a table; on a terminal it is folded to the terminal's width."""
    from fal_cli.presentation.table import render

    width = None
    if sys.stdout.isatty():
        from shutil import get_terminal_size

        width = get_terminal_size().columns
    sys.stdout.write(render(columns, rows, width=width, colour=wants_colour(sys.stdout)))


def print_line(message: str) -> None:
    """Write a message that is the result to standard output."""
    sys.stdout.write(visible(message) + "\n")


def print_note(message: str) -> None:
    """Write a message beside the result to standard error."""
    sys.stderr.write(visible(message) + "\n")


def print_error(message: str) -> None:
    """Write an error to standard error."""
    head = paint("Error:", "red", "bold", colour=wants_colour(sys.stderr))
    sys.stderr.write(f"{head} {visible(message)}\n")
