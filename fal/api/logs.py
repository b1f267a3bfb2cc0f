"""Log reading without I/O. Has the query, joins stored with followed lines, reconnects, and pages over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fal.rest_messages import parse_time
from fal_grpc.adapter.log import LogOrigin, LogQuery
from fal_grpc.adapter.values import flag, texts
from fal_grpc.backoff import Backoff
from fal_grpc.errors import ArgumentError, UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal_grpc.adapter.log import LogEntry, LogPage

log = logging.getLogger(__name__)

FOLLOW_BACK = timedelta(minutes=1)
"""How far back a followed log starts by default."""

MAX_RECONNECTS = 160
"""Consecutive attempts to reconnect a followed log: about ten minutes."""

_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def log_query(
    *,
    runner_id: str | None = None,
    app: str | None = None,
    environment_name: str | None = None,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    search: str | None,
    lines: int | None,
    oldest: bool,
    sources: Sequence[LogOrigin | str],
    request_id: str | None,
) -> LogQuery:
    """Return the query for the arguments of a namespace's `logs`.

    Raises:
        ArgumentError: arguments contradict each other, or a source is unknown.
    """
    flag("oldest", oldest)
    if flag("follow", follow) and until is not None:
        raise ArgumentError("until", "cannot be given together with follow, which goes on until the runner ends")
    if follow and oldest:
        raise ArgumentError("oldest", "cannot be given together with follow: use since")
    if follow and since is None and lines is None:
        since = datetime.now(UTC) - FOLLOW_BACK
    return LogQuery(
        runner_id=runner_id,
        app=app,
        environment_name=environment_name,
        since=since,
        until=until,
        search=search,
        lines=lines,
        oldest=oldest,
        sources=_origins(sources),
        request_id=request_id,
    )


def _origins(sources: Sequence[LogOrigin | str]) -> tuple[LogOrigin, ...]:
    known = [origin for origin in LogOrigin if origin is not LogOrigin.UNKNOWN]
    wanted = texts("sources", sources)
    for source in wanted:
        if source not in known:
            raise ArgumentError("sources", f"must be among {', '.join(known)}, not {source!r}")
    return tuple(LogOrigin(source) for source in wanted)


class TailFollowJoin:
    """Joins the newest stored lines with followed lines, without gaps or duplicates.

    Args:
        query: the query, with `lines`.
        shown: the newest lines, oldest first.
    """

    def __init__(self, query: LogQuery, shown: Sequence[LogEntry]) -> None:
        # If none is stored, every line that arrives is new.
        since = shown[0].timestamp if shown else query.since or _BEGINNING
        self.rest = replace(query, since=since, lines=None)
        self._shown = {(entry.runner_id, entry.sequence) for entry in shown}
        self._first = _position(shown[0]) if shown else None

    def is_new(self, entry: LogEntry) -> bool:
        """Return whether a line comes after the newest ones. Several lines can share a timestamp."""
        if self._first is not None and _position(entry) < self._first:
            return False
        return (entry.runner_id, entry.sequence) not in self._shown


def _position(entry: LogEntry) -> tuple[datetime, str, int]:
    """Return the sort key of an app's lines."""
    return entry.timestamp, entry.runner_id, entry.sequence


class LogReconnectPolicy:
    """Decides whether and when to reconnect a followed log. Reports it to the logger `fal.api.logs`, at INFO."""

    def __init__(self) -> None:
        self._failures = 0

    def succeeded(self) -> None:
        """Record that data arrived, which resets the count of failures."""
        if self._failures:
            log.info("The controller is reached again: the log continues where it was.")
        self._failures = 0

    def pause(self, error: UnavailableError | None, *, resumable: bool) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            error: what ended the stream; None if it ended without an error although the runner is alive.
            resumable: whether there is a position to resume from.

        Raises:
            UnavailableError: `error`, if the stream cannot resume or has failed too often in a row.
        """
        self._failures += 1
        error = error or UnavailableError("The controller ended the stream of log lines.")
        if not resumable or self._failures > MAX_RECONNECTS:
            raise error
        if self._failures == 1:
            log.info("The connection to the controller broke; trying to go on from the last line that was received.")
        return _BACKOFF.pause(self._failures)


def http_runner_id(query: LogQuery, error: UnimplementedError) -> str:
    """Return the runner whose lines to read over HTTP. The controller lacks our rpcs.

    Raises:
        UnimplementedError: HTTP cannot answer this query either.
    """
    if query.runner_id is None or query.sources or query.request_id:
        raise UnimplementedError(
            "This controller gives the lines of one runner at a time, whatever they came from: "
            "`fal runners list` shows the runners, `fal runners logs ID` their lines."
        ) from error
    return query.runner_id


class HttpHistory:
    """Collects stored lines over HTTP. The controller's pages go back from the newest line.

    Args:
        query: which lines.
        started_at, ended_at: the runner's times; None for an event that has not happened.
    """

    def __init__(self, query: LogQuery, started_at: datetime | None, ended_at: datetime | None) -> None:
        self._query = query
        self._wanted = None if query.oldest else query.lines
        self._found: list[LogEntry] = []
        self.search = query.search
        self.since, self.until = query.since, query.until
        if started_at is not None and (self.since is None or self.since.astimezone(UTC) < started_at):
            self.since = started_at
        if self.until is None and ended_at is not None:
            # A runner writes its last lines while it ends.
            self.until = ended_at + timedelta(seconds=1)

    def take(self, page: LogPage) -> bool:
        """Add a page, and return whether another is needed. The next one has lines before `until`, back to `since`."""
        self._found.extend(page.entries)
        following = parse_time(page.next_page_token)
        if following is None or (self.since is not None and following <= self.since.astimezone(UTC)):
            return False
        if self.until is not None and following >= self.until.astimezone(UTC):
            return False  # a controller whose pages do not go back would be asked forever
        self.until = following
        return self._wanted is None or len(self._found) < self._wanted

    def lines(self) -> list[LogEntry]:
        """Return the lines, oldest first. The oldest are only known once all pages are here."""
        oldest_first = self._found[: self._wanted][::-1]
        return oldest_first[: self._query.lines] if self._query.oldest else oldest_first
