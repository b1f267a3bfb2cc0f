"""What `fal runners logs` and `fal apps logs` share: options, and how lines are written."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.parser import FalParser, add_client_options, add_output_options, moment_type
from fal_cli.presentation.output import note, write_line, write_list
from fal_cli.presentation.printable import log_text, one_line
from fal_cli.presentation.style import paint, wants_colour

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import LogEntry

SOURCES = ("build", "system", "stdout", "stderr")
_LEVEL_STYLES = {"TRACE": "dim", "DEBUG": "cyan", "INFO": "green", "WARNING": "yellow", "ERROR": "red"}
_RUNNER_STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
_SHORT_ID = 8


def add_log_options(parser: FalParser, *, since: str, until: str, lines: str, own: bool) -> None:
    """Declare the options.

    Args:
        since, until, lines: the help of these.
        own: whether the help shows --source and --request-id, which the published client does not have.
    """
    add_output_options(parser)
    add_client_options(parser)
    parser.add_argument("--search", help="Search for string in logs.")
    parser.add_argument("--since", type=moment_type(), help=since)
    parser.add_argument("--until", type=moment_type(), help=until)
    parser.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="Follow logs live. If --since is not specified, implies '--since 1m ago'.",
    )
    parser.add_argument("--lines", "-n", type=_line_count, help=lines)
    parser.add_argument(
        "--source",
        action="append",
        choices=SOURCES,
        default=[],
        help="Only lines from this: the build, the platform (system), or one of the app's streams. May be repeated."
        if own
        else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--request-id",
        metavar="ID",
        help="Only lines that were written for this request." if own else argparse.SUPPRESS,
    )


def check_times(args: argparse.Namespace, *, end: str) -> None:
    """Refuse what cannot be.

    Args:
        end: until when a log is followed, in words.
    """
    if args.since and args.until and args.until < args.since:
        raise CommandError("--until is before --since: no line can be between them", ExitCode.USAGE)
    if args.follow and args.until:
        raise CommandError(f"--follow goes on {end}: leave out --until", ExitCode.USAGE)


def write_entries(form: str, entries: Iterable[LogEntry], *, prefixed: bool = False) -> None:
    """Write stored lines.

    Args:
        form: the form of output.
        entries: the lines; a long history need not fit into memory, but in YAML.
        prefixed: whether each line tells its runner, for people.
    """
    if form == "pretty":
        write = _printer(prefixed=prefixed)
        for entry in entries:
            write(entry)
    elif form == "json":
        _write_json(map(_document, entries))
    else:
        write_list(form, "logs", map(_document, entries))


def write_followed(form: str, entries: Iterable[LogEntry], *, prefixed: bool = False) -> None:
    """Write lines as they come: for people, or one JSON object a line; and tell when the controller was lost."""
    write = _printer(prefixed=prefixed) if form == "pretty" else _write_document
    with _told_on_stderr():
        for batch in _batches(entries):
            for entry in batch:
                write(entry)
            sys.stdout.flush()


def _batches(entries: Iterable[LogEntry]) -> Iterable[Sequence[LogEntry]]:
    """The lines as they arrive, so that those that came together are written together."""
    from fal.api.log_reading import LogLines

    return entries.batches() if isinstance(entries, LogLines) else ((entry,) for entry in entries)


def _line_count(text: str) -> tuple[int, bool]:
    """Return how many lines are wanted, and whether the oldest are."""
    count = text.removeprefix("+")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of lines; use N for the newest N, +N for the oldest N")
    return int(count), text.startswith("+")


class _Notes(logging.Handler):
    """Writes what the SDK logs as notes to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def _told_on_stderr() -> Generator[None, None, None]:
    logger, handler = logging.getLogger("fal.api.logs"), _Notes()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _document(entry: LogEntry) -> Mapping[str, object]:
    return {
        "timestamp": entry.timestamp.isoformat(),
        "level": entry.level.value,
        "message": entry.message,
        "source": entry.source.value,
        "sequence": entry.sequence,
        "runner_id": entry.runner_id,
        "request_id": entry.request_id,
        "app": entry.app,
        "revision": entry.revision,
    }


def _write_document(entry: LogEntry) -> None:
    write_line(_document(entry))


def _write_json(items: Iterable[Mapping[str, object]]) -> None:
    """Write `{"logs": [...]}` as the lines come: a long history need not fit into memory."""
    import json

    separator = '{"logs": ['
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ", "
    sys.stdout.write("]}\n" if separator == ", " else '{"logs": []}\n')


def _printer(*, prefixed: bool) -> Callable[[LogEntry], None]:
    """Return what writes an entry as `[RUNNER] TIME LEVEL message`, in local time; to a pipe the message goes as it is.

    Each runner has a colour, in the order in which they are met.
    """
    colour = wants_colour(sys.stdout)
    terminal = sys.stdout.isatty()
    prefixes: dict[str, str] = {}
    levels: dict[str, str] = {}
    at: datetime | None = None
    moment = ""

    def prefix(runner_id: str) -> str:
        if not prefixed:
            return ""
        found = prefixes.get(runner_id)
        if found is None:
            style = _RUNNER_STYLES[len(prefixes) % len(_RUNNER_STYLES)]
            found = prefixes[runner_id] = paint(one_line(_short(runner_id)), style, colour=colour) + " "
        return found

    def write(entry: LogEntry) -> None:
        nonlocal at, moment
        if entry.timestamp is not at:  # lines that were read together have the same
            at = entry.timestamp
            moment = paint(at.astimezone().isoformat(timespec="milliseconds"), "dim", colour=colour)
        level = levels.get(entry.level)
        if level is None:
            style = _LEVEL_STYLES.get(entry.level.value, "dim")
            level = levels[entry.level] = paint(f"{entry.level.value:<7}", style, colour=colour)
        message = log_text(entry.message, colour=colour) if terminal else entry.message
        sys.stdout.write(f"{prefix(entry.runner_id)}{moment} {level} {message}\n")

    return write


def _short(runner_id: str) -> str:
    """The part of a runner's id that tells it from others; a build is called by its kind."""
    return "build".ljust(_SHORT_ID) if runner_id.startswith("build-") else runner_id[:_SHORT_ID]
