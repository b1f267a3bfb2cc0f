"""Lists of a noun. Says which columns they have, and how rows are selected, sorted and written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from fal_cli.completion import complete_words
from fal_cli.options import add_output_options, open_client, seconds_type
from fal_cli.parser import FalParser
from fal_cli.presentation.notes import notes_on_stderr
from fal_cli.presentation.output import LIST_FORMATS, print_note, shown_time, write_list, write_table
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import SyncServerlessClient

Item = TypeVar("Item")
Fetched = TypeVar("Fetched")
_WATCH_SECONDS = 2.0
_AS_IT_CHANGES = 0.0
# Home, then clear to the end, and the scrollback.
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field(Column, Generic[Item]):
    """One column of a list.

    Attributes:
        text: returns the cell of an item.
        sort_key: returns the value to sort by; the text if None.
        wide: whether the column is shown only with `-o wide`.
    """

    text: Callable[[Item], str]
    sort_key: Callable[[Item], float | str | None] | None = None
    wide: bool = False

    @property
    def name(self) -> str:
        """The name for --columns and --sort, such as `machine-type`."""
        return self.title.lower().replace(" ", "-")


def time_field(title: str, of: Callable[[Item], datetime | None], *, wide: bool = False) -> Field[Item]:
    """Return a column for a time."""
    return Field(
        title=title,
        text=lambda item: shown_time(of(item)),
        sort_key=lambda item: at.timestamp() if (at := of(item)) is not None else None,
        folds=True,
        wide=wide,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[Item]):
    """The list of a noun.

    Attributes:
        noun: the plural, which is also the key of the list in JSON.
        fields: all columns.
        document: returns an item for JSON and YAML.
        item_name: returns the text for `-o name`.
    """

    noun: str
    fields: tuple[Field[Item], ...]
    document: Callable[[Item], Mapping[str, object]]
    item_name: Callable[[Item], str]

    def field(self, name: str) -> Field[Item]:
        """Return a column by its name.

        Raises:
            ValueError: there is no such column.
        """
        found = next((field for field in self.fields if field.name == name.strip().lower()), None)
        if found is None:
            known = ", ".join(field.name for field in self.fields)
            raise ValueError(f"'{name}' is not a column: choose from {known}")
        return found


def add_list_options(parser: FalParser, listing: Listing[Item]) -> None:
    """Add --output, --json, --columns, --sort and --watch."""
    add_output_options(parser, forms=LIST_FORMATS)

    def read_columns(text: str) -> list[Field[Item]]:
        return [_field(listing, name) for name in text.split(",")]

    def read_order(text: str) -> tuple[Field[Item], bool]:
        name, _, direction = text.partition(":")
        if direction not in {"", "asc", "desc"}:
            raise argparse.ArgumentTypeError(f"'{text}': write NAME, NAME:asc or NAME:desc")
        return _field(listing, name), direction == "desc"

    watch = parser.add_argument(
        "--watch",
        "-w",
        nargs="?",
        const=_AS_IT_CHANGES,
        type=seconds_type,
        metavar="SECONDS",
        help="Show the list again as it changes or, with SECONDS, as often as that.",
    )
    parser.beyond(watch)
    names = ", ".join(field.name for field in listing.fields)
    columns = parser.add_argument(
        "--columns", type=read_columns, metavar="NAME[,NAME]", help=f"Show these columns, in this order: {names}."
    )
    order = parser.add_argument("--sort", type=read_order, metavar="NAME[:desc]", help="Sort by a column.")
    for action in (columns, order):
        complete_words(action, lambda: [field.name for field in listing.fields])
        parser.beyond(action)


def run_list(
    args: argparse.Namespace,
    fetch: Callable[[SyncServerlessClient], Fetched],
    write: Callable[[Fetched], None],
    watch: Callable[[SyncServerlessClient], Iterable[Fetched]] | None = None,
) -> None:
    """Fetch and write a list once, or with --watch repeatedly until Ctrl-C.

    A terminal shows the latest list only; a pipe gets each list that differs from the one before.

    Args:
        args: the parsed command line.
        fetch: returns the items.
        write: writes the items.
        watch: yields the items at each change; None if this list cannot be watched.
    """
    with open_client(args) as client:
        if args.watch == _AS_IT_CHANGES and watch is not None:
            _show_each(watch(client), write, "As it changes")
        else:
            run_local_list(args, lambda: fetch(client), write)


def run_local_list(args: argparse.Namespace, fetch: Callable[[], Fetched], write: Callable[[Fetched], None]) -> None:
    """Like `run_list`, for a list that does not come from a controller."""
    if args.watch is None:
        write(fetch())
        return
    seconds = args.watch or _WATCH_SECONDS
    _show_each(_polled(fetch, seconds), write, f"Every {seconds:g} s")


def _show_each(lists: Iterable[Fetched], write: Callable[[Fetched], None], how: str) -> None:
    import time

    shown: Fetched | None = None
    with notes_on_stderr():
        for found in lists:
            if sys.stdout.isatty():
                sys.stdout.write(f"{_CLEAR}{how}, Ctrl-C ends. {time.strftime('%H:%M:%S')}\n\n")
                write(found)
            elif found != shown:
                write(found)
            sys.stdout.flush()
            shown = found


def _polled(fetch: Callable[[], Fetched], seconds: float) -> Iterator[Fetched]:
    """Yield the results of `fetch` repeatedly. After the first one, wait for a controller that is away."""
    import time

    from fal.api import UnavailableError

    yield fetch()
    while True:
        time.sleep(seconds)  # these lists have no Watch method
        try:
            found = fetch()
        except UnavailableError as error:
            print_note(str(error))
            continue
        yield found


def _field(listing: Listing[Item], name: str) -> Field[Item]:
    try:
        return listing.field(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def sort_items(args: argparse.Namespace, listing: Listing[Item], items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of --sort, or in their own."""
    if not args.sort:
        return list(items)
    field, descending = args.sort
    key = field.sort_key or field.text
    keyed = [(key(item), item) for item in items]
    known = [(value, item) for value, item in keyed if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=descending)
    # Items without a value come last in both directions.
    return [item for _, item in known] + [item for value, item in keyed if value is None]


def write_items(
    args: argparse.Namespace, listing: Listing[Item], items: Sequence[Item], *, hidden: frozenset[str] = frozenset()
) -> None:
    """Write a list as --output, --columns and --sort require.

    A pipe gets the same columns as a terminal, in full width, so that a script sees what its author saw.

    Args:
        args: the parsed command line.
        listing: the description of the list.
        items: the items.
        hidden: titles of columns without information here; --columns still shows them.
    """
    items = sort_items(args, listing, items)
    if args.output == "name":
        sys.stdout.writelines(f"{listing.item_name(item)}\n" for item in items)
    elif args.output not in {"pretty", "wide"}:
        write_list(args.output, listing.noun, map(listing.document, items))
    else:
        if not items and sys.stdout.isatty():
            print_note(f"No {listing.noun}.")
            return
        if args.columns:
            fields: Sequence[Field[Item]] = args.columns
        else:
            wide = args.output == "wide"
            fields = [field for field in listing.fields if field.title not in hidden and (wide or not field.wide)]
        shown = [replace(field, shortens=field.shortens and args.output != "wide") for field in fields]
        write_table(shown, ([field.text(item) for field in fields] for item in items))
