"""Writes the log lines of runners, builds and deploys."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.presentation.notes import notes_on_stderr
from fal_cli.presentation.output import write_line, write_list
from fal_cli.presentation.printable import log_text, one_line
from fal_cli.presentation.style import paint, wants_color

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import Log, LogEntry

_LEVEL_STYLES = {"TRACE": "dim", "DEBUG": "cyan", "INFO": "green", "WARNING": "yellow", "ERROR": "red"}
_RUNNER_STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
_SHORT_ID = 8
_PLACE = re.compile(r"\{(\w+)\}")
_DEPLOY_STYLES = {"WARNING": "yellow", "ERROR": "red"}
_QUIET_LEVELS = frozenset({"TRACE", "DEBUG"})


def check_times(args: argparse.Namespace, *, end: str) -> None:
    """Reject contradictory --since, --until and --follow.

    Args:
        end: when following ends, for the message.
    """
    if args.since and args.until and args.until < args.since:
        raise CommandError("--until is before --since: no line can be between them", ExitCode.USAGE)
    if args.follow and args.until:
        raise CommandError(f"--follow goes on {end}: leave out --until", ExitCode.USAGE)


def write_entries(form: str, entries: Iterable[LogEntry], *, prefixed: bool = False) -> None:
    """Write stored lines.

    Args:
        form: pretty, json, yaml or jsonl.
        entries: the lines; only YAML keeps all of them in memory.
        prefixed: whether each line for people starts with its runner's id.
    """
    if form == "pretty":
        write = _printer(prefixed=prefixed)
        for entry in entries:
            write(entry)
    elif form == "json":
        _write_json(map(_document, entries))
    else:
        write_list(form, "logs", map(_document, entries))


def searched(
    read: Callable[[Callable[[datetime], None] | None], Iterable[LogEntry]], *, subject: str, oldest: bool
) -> Iterable[LogEntry]:
    """Return stored lines. On a terminal, a live line on standard error shows the progress of a long search.

    Args:
        read: returns the lines, given a callback for the time that the search has reached.
        subject: what the lines belong to.
        oldest: whether the search begins with the oldest line.
    """
    return _with_progress(read, subject, "up to" if oldest else "back to") if sys.stderr.isatty() else read(None)


def _with_progress(
    read: Callable[[Callable[[datetime], None] | None], Iterable[LogEntry]], subject: str, way: str
) -> Iterator[LogEntry]:
    from fal_cli.presentation.progress import LiveLine

    line: LiveLine | None = None

    def reached(at: datetime) -> None:
        nonlocal line
        line = line or LiveLine(f"Searching the log of {subject}").start()
        line.step(f"{way} {at.astimezone():%Y-%m-%d %H:%M:%S}")

    try:
        for entry in read(reached):
            if line is not None:
                line.end()
                line = None
            yield entry
    finally:
        if line is not None:
            line.end()


def write_followed(form: str, entries: Iterable[LogEntry], *, prefixed: bool = False) -> None:
    """Write lines as they arrive. A note on standard error reports a lost controller."""
    write = _printer(prefixed=prefixed) if form == "pretty" else _write_document
    with notes_on_stderr():
        for batch in _batches(entries):
            for entry in batch:
                write(entry)
            sys.stdout.flush()


def _batches(entries: Iterable[LogEntry]) -> Iterable[Sequence[LogEntry]]:
    """Return the lines in batches as they arrived. The output is flushed once for each."""
    from fal.api.log_reading import LogLines

    return entries.batches() if isinstance(entries, LogLines) else ((entry,) for entry in entries)


def _document(entry: LogEntry) -> Mapping[str, object]:
    """Return a line as JSON values. It has the published keys in their form, plus our own."""
    return {
        "timestamp": entry.timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "level": entry.level.value,
        "message": entry.message,
        "job_id": entry.runner_id,
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
    """Write `{"logs": [...]}` line by line. A long history may not fit into memory."""
    import json

    separator = '{"logs": ['
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ", "
    sys.stdout.write("]}\n" if separator == ", " else '{"logs": []}\n')


def _printer(*, prefixed: bool) -> Callable[[LogEntry], None]:
    """Return a writer of `[RUNNER] TIME LEVEL message`, in local time. A pipe gets the message unchanged."""
    color = wants_color(sys.stdout)
    terminal = sys.stdout.isatty()
    prefixes: dict[str, str] = {}
    levels: dict[str, str] = {}
    at: datetime | None = None
    time = ""

    def prefix(runner_id: str) -> str:
        if not prefixed:
            return ""
        found = prefixes.get(runner_id)
        if found is None:
            style = _RUNNER_STYLES[len(prefixes) % len(_RUNNER_STYLES)]
            found = prefixes[runner_id] = paint(one_line(_short(runner_id)), style, color=color) + " "
        return found

    def write(entry: LogEntry) -> None:
        nonlocal at, time
        if entry.timestamp is not at:  # lines that were read together share it
            at = entry.timestamp
            time = paint(at.astimezone().isoformat(timespec="milliseconds"), "dim", color=color)
        level = levels.get(entry.level)
        if level is None:
            style = _LEVEL_STYLES.get(entry.level.value, "dim")
            level = levels[entry.level] = paint(f"{entry.level.value:<7}", style, color=color)
        message = log_text(entry.message, color=color) if terminal else entry.message
        sys.stdout.write(f"{prefix(entry.runner_id)}{time} {level} {message}\n")

    return write


def line_writer(form: str, highlight: re.Pattern[str] | None) -> Callable[[LogEntry], None]:
    """Return a writer of lines of several apps: `[APP RUNNER] TIME LEVEL message`, or a document per line.

    Args:
        form: `pretty`, or a form for programs.
        highlight: text to mark on a terminal.
    """
    if form != "pretty":
        return _write_document
    write, color = _printer(prefixed=True), wants_color(sys.stdout)
    styles: dict[str, str] = {}

    def write_line_of(entry: LogEntry) -> None:
        style = styles.setdefault(entry.app, _RUNNER_STYLES[len(styles) % len(_RUNNER_STYLES)])
        if highlight is not None and color:
            marked = highlight.sub(lambda found: paint(found[0], "reverse", color=True), entry.message)
            entry = replace(entry, message=marked)
        sys.stdout.write(paint(one_line(entry.app), style, color=color) + " ")
        write(entry)

    return write_line_of


def template_writer(template: str) -> Callable[[LogEntry], None]:
    """Return a writer of lines in a user's own format.

    Raises:
        ValueError: it contains an unknown name.
    """
    values: dict[str, Callable[[LogEntry], str]] = {
        "time": lambda entry: entry.timestamp.astimezone().isoformat(timespec="milliseconds"),
        "level": lambda entry: entry.level.value,
        "app": lambda entry: entry.app,
        "runner": lambda entry: entry.runner_id,
        "revision": lambda entry: entry.revision,
        "request": lambda entry: entry.request_id or "",
        "source": lambda entry: entry.source.value,
        "message": lambda entry: entry.message,
    }
    unknown = sorted(set(_PLACE.findall(template)) - set(values))
    if unknown:
        raise ValueError(f"--template: {{{unknown[0]}}} is not known; use some of {', '.join(values)}")
    terminal, color = sys.stdout.isatty(), wants_color(sys.stdout)

    def write(entry: LogEntry) -> None:
        text = _PLACE.sub(lambda place: values[place[1]](entry), template)
        sys.stdout.write((log_text(text, color=color) if terminal else text) + "\n")

    return write


def _short(runner_id: str) -> str:
    """Return the beginning of a runner's id, or "build" for a build."""
    return "build".ljust(_SHORT_ID) if runner_id.startswith("build-") else runner_id[:_SHORT_ID]


def write_deploy_logs(logs: Iterable[Log]) -> None:
    """Write the lines of a deploy or run to standard error. Those below INFO and those of the build are left out."""
    color = wants_color(sys.stderr)
    terminal = sys.stderr.isatty()
    for log in logs:
        source, level = log.source.value, log.level.value
        if level in _QUIET_LEVELS or source == "BUILDER":
            continue
        message = log_text(log.message, color=color) if terminal else log.message
        style = _DEPLOY_STYLES.get(level)
        sys.stderr.write((paint(message, style, color=color) if style else message) + "\n")
    sys.stderr.flush()
