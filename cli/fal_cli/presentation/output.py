"""Writes results to standard output and messages to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from fal_cli.presentation.printable import one_line, visible
from fal_cli.presentation.style import paint, wants_color

if TYPE_CHECKING:
    from datetime import datetime

    from fal_cli.presentation.table import Column

FORMATS = ("pretty", "json", "yaml", "jsonl")
_STDERR = 2
# No terminal is narrower, so shorter texts need no check of its width.
_NARROW = 40
_NEXT_UNIT = 1000
_PART = 100
LIST_FORMATS = (*FORMATS, "wide", "name")


def print_last_words(message: str) -> None:
    """Write a message to standard error from a signal handler. The handler may have interrupted another write."""
    os.write(_STDERR, f"{visible(message)}\n".encode(errors="replace"))


def write_list(form: str, key: str, items: Iterable[Mapping[str, object]]) -> None:
    """Write a list for programs.

    Args:
        form: `json` and `yaml` write one document `{key: [...]}`, `jsonl` one item per line.
        key: the name of the list in the document.
        items: the items.
    """
    if form == "jsonl":
        for item in items:
            write_line(item)
    elif form == "json" and not sys.stdout.isatty():
        _write_array(key, items)
    else:
        write_document(form, {key: list(items)})


def _write_array(key: str, items: Iterable[Mapping[str, object]]) -> None:
    """Write `{key: [...]}` as one line, in parts. The rows of thousands of items then never exist at once."""
    import json

    remaining = iter(items)
    part = list(islice(remaining, _PART))
    sys.stdout.write(f"{{{json.dumps(key)}: [{json.dumps(part)[1:-1]}")
    while part := list(islice(remaining, _PART)):
        sys.stdout.write(f", {json.dumps(part)[1:-1]}")
    sys.stdout.write("]}\n")


def write_document(form: str, document: Mapping[str, object]) -> None:
    """Write one document: `yaml` as YAML, `jsonl` as one line of JSON, `json` likewise but indented on a terminal."""
    if form == "yaml":
        import yaml

        yaml.safe_dump(document, sys.stdout, sort_keys=False, default_flow_style=False)
    elif form == "json" and sys.stdout.isatty():
        import json

        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        write_line(document)


def write_line(item: object) -> None:
    """Write one line of JSON. It is ASCII, so that nothing in it can act on a terminal."""
    import json

    sys.stdout.write(json.dumps(item) + "\n")


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Write a table that fits the terminal. A pipe gets one line for each row."""
    from fal_cli.presentation.table import render

    sys.stdout.write(render(columns, rows, width=terminal_width(), color=wants_color(sys.stdout)))


def terminal_width() -> int | None:
    """Return the terminal's columns; None if standard output is no terminal."""
    if not sys.stdout.isatty():
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns


def shown_time(at: datetime | None) -> str:
    """Return a time for people. It is local and relative on a terminal, and ISO in UTC in a pipe."""
    if at is None:
        return ""
    from fal_cli.times import describe_time, iso_utc

    return describe_time(at) if sys.stdout.isatty() else iso_utc(at)


def shown_clock(at: datetime) -> str:
    """Return an event's time for people. It is like `shown_time`, but without the date on a terminal."""
    from fal_cli.times import iso_utc

    if sys.stdout.isatty():
        return f"{at.astimezone():%H:%M:%S.%f}"[:-3]
    return iso_utc(at, milliseconds=True)


def shown_cores(cores: float | None) -> str:
    """Return processors or GPUs as percent, like `top`; empty if unknown. One that is always busy has 100%."""
    return "" if cores is None else f"{cores:.0%}"


def shown_bytes(count: float | None) -> str:
    """Return a number of bytes for people, such as `512 MiB`. It is empty if unknown."""
    if count is None:
        return ""
    size, unit = count, "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit at which it stops is used
        if size < _NEXT_UNIT:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"


def print_line(message: str) -> None:
    """Write a message that is the result to standard output. It is broken between words on a terminal."""
    sys.stdout.write(fitted(visible(message), sys.stdout) + "\n")


def print_facts(facts: Iterable[tuple[str, str]], width: int) -> None:
    """Write a line for each title and text. The texts begin at the same column."""
    for title, text in facts:
        print_line(f"{title + ':':<{width}}{text}")


def print_reasons(messages: Iterable[str]) -> None:
    """Write remarks below a list, a line each. They are broken like the list on a terminal."""
    lines, width = [one_line(message) for message in messages], terminal_width()
    if width is not None and lines:
        from fal_cli.presentation.folding import fold

        lines = [part for line in lines for part in fold(line, width, cut=True)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def print_note(message: str) -> None:
    """Write a message that is not the result to standard error."""
    sys.stderr.write(fitted(visible(message), sys.stderr) + "\n")


def print_error(message: str) -> None:
    """Write an error to standard error."""
    text = fitted(f"Error: {visible(message)}", sys.stderr).removeprefix("Error:")
    sys.stderr.write(paint("Error:", "red", "bold", color=wants_color(sys.stderr)) + text + "\n")


def fitted(text: str, stream: TextIO) -> str:
    """Return a text with lines broken between words. A terminal then does not break words."""
    if len(text) < _NARROW or not stream.isatty():
        return text
    from shutil import get_terminal_size

    from fal_cli.presentation.folding import fold_lines

    return fold_lines(text, get_terminal_size().columns)
