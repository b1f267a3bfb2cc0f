"""The arguments that many commands share, and the client that they select."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.ids import ENVIRONMENTS
from fal_cli.presentation.output import FORMATS

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from fal.api import SyncServerlessClient
    from fal_cli.parser import FalParser

# Clocks differ a little, and typing takes time: `--since 24h` must not fail because of that.
_LEEWAY_SECONDS = 60
MAX_INT32 = 2**31 - 1
_MAX_DIGITS = 20
LOG_SOURCES = ("build", "system", "stdout", "stderr")


def add_client_options(parser: FalParser) -> None:
    """Add --team, and the hidden --host."""
    parser.add_argument("--team", help="The team to use.")
    parser.add_argument("--host", help=argparse.SUPPRESS)


def open_client(args: argparse.Namespace) -> SyncServerlessClient:
    """Return a client for --host, --team, the environment and the profile. The caller closes it."""
    from fal.api import SyncServerlessClient

    return SyncServerlessClient(host=args.host, team=args.team)


def add_output_options(parser: FalParser, *, forms: Sequence[str] = FORMATS) -> None:
    """Add --output and --json. Their help is the published client's; -o has a separate line.

    Args:
        forms: the choices of --output.
    """
    group = parser.add_argument_group("Output")
    group.add_argument(
        "--output", choices=forms, metavar="{pretty,json}", default="pretty", help="Modify the command output"
    )
    parser.beyond(
        parser.add_argument(
            "-o", dest="output", choices=forms, help="Short for --output, which takes all of these forms."
        )
    )
    group.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="output",
        help="Output in JSON format (same as --output json)",
    )


def add_env_option(parser: FalParser) -> None:
    """Add --env, whose default is FAL_ENV."""
    action = parser.add_argument(
        "--env",
        type=name_type,
        default=os.environ.get("FAL_ENV") or None,
        help="Target environment (defaults to main). Can also be set via FAL_ENV environment variable.",
    )
    complete_ids(action, ENVIRONMENTS)


def add_log_options(parser: FalParser, *, since: str, until: str, lines: str) -> None:
    """Add the options of a command that shows logs.

    Args:
        since: the help of --since.
        until: the help of --until.
        lines: the help of --lines.
    """
    add_output_options(parser)
    add_client_options(parser)
    parser.add_argument("--search", help="Search for string in logs.")
    parser.add_argument("--since", type=time_type(), help=since)
    parser.add_argument("--until", type=time_type(), help=until)
    parser.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="Follow logs live. If --since is not specified, implies '--since 1m ago'.",
    )
    parser.add_argument("--lines", "-n", type=_line_count, help=lines)
    parser.beyond(
        parser.add_argument(
            "--source",
            action="append",
            choices=LOG_SOURCES,
            default=[],
            help="Only lines from the build, the platform (system), or one of the app's streams. May be repeated.",
        )
    )
    parser.beyond(
        parser.add_argument("--request-id", metavar="ID", help="Only lines that were written for this request.")
    )


def time_type(*, at_most: timedelta | None = None, past: bool = False) -> Callable[[str], datetime]:
    """Return an argparse type that reads a time.

    Args:
        at_most: how far back the time may be; None sets no limit.
        past: whether to refuse a time in the future.
    """

    def read_time(text: str) -> datetime:
        from datetime import UTC, datetime, timedelta

        from fal_cli.times import parse_time

        try:
            parsed = parse_time(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if at_most is not None and datetime.now(UTC) - parsed > at_most + timedelta(seconds=_LEEWAY_SECONDS):
            hours = at_most.total_seconds() / 3600
            raise argparse.ArgumentTypeError(f"'{text}' is older than the limit of {hours:g} hours")
        if past and parsed - datetime.now(UTC) > timedelta(seconds=_LEEWAY_SECONDS):
            raise argparse.ArgumentTypeError(f"'{text}' is in the future")
        return parsed

    return read_time


def duration_type(text: str) -> timedelta:
    """Read a duration, for argparse."""
    from fal_cli.times import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def int_type(text: str) -> int:
    """Read a whole number that the wire can carry, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text[:_MAX_DIGITS]}' is not a whole number") from None
    if abs(number) > MAX_INT32:
        raise argparse.ArgumentTypeError(f"'{text[:_MAX_DIGITS]}' is too big: at most {MAX_INT32}")
    return number


def name_type(text: str) -> str:
    """Read a name, for argparse. An empty one, as of an unset variable, might stand for everything."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give one; an unset variable may be why")
    return text


def path_type(text: str) -> Path:
    """Read a path, for argparse. An empty one, as of an unset variable, would be the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: give one; an unset variable may be why")
    return Path(text)


def seconds_type(text: str) -> float:
    """Read a number of seconds above 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return seconds


def _line_count(text: str) -> tuple[int, bool]:
    """Return the number of lines, and whether they are the oldest."""
    count = text.removeprefix("+")
    if not (count.isascii() and count.isdigit() and 0 < int(count[:_MAX_DIGITS]) <= MAX_INT32):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of lines; use N for the newest N, +N for the oldest N"
        )
    return int(count), text.startswith("+")
