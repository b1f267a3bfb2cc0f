"""`fal logs`: shows merged logs of apps whose names match a pattern."""

from __future__ import annotations

import argparse
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS
from fal_cli.options import add_env_option, add_log_options, open_client
from fal_cli.parser import FalParser
from fal_cli.presentation.logs import check_times, line_writer, searched, template_writer, write_entries
from fal_cli.presentation.notes import notes_on_stderr
from fal_cli.presentation.output import print_note

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import LogEntry, SyncServerlessClient

_FOLLOWED_AT_ONCE = 64
_TEMPLATE_HELP = (
    "Write each line like this, such as '{app} {message}'. Names: time, level, app, runner, revision, request, source, "
    "message."
)


def add_arguments(parser: FalParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Show the logs of all applications whose names match a pattern, merged by time. With --follow, applications "
        "that are deployed later are shown, too."
    )
    patterns = parser.add_argument(
        "patterns",
        nargs="*",
        type=_pattern,
        metavar="PATTERN",
        help="Regular expressions, matched anywhere in a name; without any, all applications.",
    )
    complete_ids(patterns, APPS)
    add_env_option(parser)
    add_log_options(
        parser,
        since="Show logs since the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp.",
        until="Show logs until the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp.",
        lines="Only show latest N log lines of all. If '+' prefix is used, show oldest N.",
    )
    parser.add_argument("--exclude", type=_pattern, metavar="PATTERN", help="Leave out lines that match.")
    parser.add_argument("--highlight", type=_pattern, metavar="PATTERN", help="Mark what matches, on a terminal.")
    parser.add_argument("--template", metavar="TEXT", help=_TEMPLATE_HELP)
    parser.set_defaults(handler=_logs)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a regular expression: {error}") from None


def _logs(args: argparse.Namespace) -> None:
    check_times(args, end="until it is interrupted")
    lines, oldest = args.lines or (None, False)
    if args.follow and lines is not None:
        raise CommandError("--follow shows new lines: use --since instead of --lines", ExitCode.USAGE)
    try:
        write = template_writer(args.template) if args.template else line_writer(args.output, args.highlight)
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    with open_client(args) as client:
        if args.follow:
            _follow(client, args, write)
            return
        names = [name for name in _names(client, args) if _matches(args, name)]
        if not names:
            raise CommandError("no application matches: `fal apps list` shows which exist")
        found = merge(*(_searched(client, args, name) for name in names), key=lambda entry: entry.timestamp)
        kept: Iterable[LogEntry] = (
            entry for entry in found if not (args.exclude and args.exclude.search(entry.message))
        )
        if lines is not None:
            kept = islice(kept, lines) if oldest else deque(kept, maxlen=lines)
        if args.output == "pretty":
            for entry in kept:
                write(entry)
        else:
            write_entries(args.output, kept)


def _names(client: SyncServerlessClient, args: argparse.Namespace) -> list[str]:
    return [app.alias for app in client.apps.list(environment_name=args.env)]


def _matches(args: argparse.Namespace, name: str) -> bool:
    return not args.patterns or any(pattern.search(name) for pattern in args.patterns)


def _searched(client: SyncServerlessClient, args: argparse.Namespace, name: str) -> Iterable[LogEntry]:
    oldest = bool(args.lines) and args.lines[1] and not args.exclude
    return searched(lambda on_progress: _entries(client, args, name, on_progress), subject=name, oldest=oldest)


def _entries(
    client: SyncServerlessClient,
    args: argparse.Namespace,
    name: str,
    on_progress: Callable[[datetime], None] | None = None,
) -> Iterator[LogEntry]:
    lines, oldest = args.lines or (None, False)
    return client.apps.logs(
        name,
        follow=args.follow,
        since=args.since,
        until=args.until,
        search=args.search,
        # Excluded lines must not count.
        lines=None if args.exclude else lines,
        oldest=oldest and not args.exclude,
        sources=args.source,
        request_id=args.request_id,
        environment_name=args.env,
        on_progress=on_progress,
    )


def _follow(client: SyncServerlessClient, args: argparse.Namespace, write: Callable[[LogEntry], None]) -> None:
    with notes_on_stderr():
        for entry in _Followed(client, args):
            if not (args.exclude and args.exclude.search(entry.message)):
                write(entry)
                sys.stdout.flush()


class _Followed:
    """Follows each app in its own thread, including apps deployed later."""

    def __init__(self, client: SyncServerlessClient, args: argparse.Namespace) -> None:
        self._client = client
        self._args = args
        self._arrived: SimpleQueue[LogEntry | BaseException] = SimpleQueue()
        self._names: set[str] = set()

    def __iter__(self) -> Iterator[LogEntry]:
        self._start(self._watch)
        while True:
            entry = self._arrived.get()
            if isinstance(entry, BaseException):
                raise entry
            yield entry

    def _start(self, work: Callable[..., None], *args: str) -> None:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                self._arrived.put(error)

        threading.Thread(target=run, name="fal-logs", daemon=True).start()

    def _watch(self) -> None:
        for apps in self._client.apps.watch(environment_name=self._args.env):
            for name in [app.alias for app in apps if _matches(self._args, app.alias)]:
                if name in self._names:
                    continue
                if len(self._names) >= _FOLLOWED_AT_ONCE:
                    raise CommandError(f"more than {_FOLLOWED_AT_ONCE} applications match: name fewer", ExitCode.USAGE)
                self._names.add(name)
                print_note(f"+ {name}")
                self._start(self._read, name)

    def _read(self, name: str) -> None:
        from fal.api import NotFoundError

        try:
            for entry in _entries(self._client, self._args, name):
                self._arrived.put(entry)
        except NotFoundError:
            self._names.discard(name)  # it was deleted, and is followed again if it returns
