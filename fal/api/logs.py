"""Log lines of a runner, by our own rpcs or by the HTTP requests that other controllers serve instead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fal_grpc.errors import ArgumentError, CallError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal_grpc.adapter.log import LogEntry, LogPage

FOLLOW_BACK = timedelta(minutes=1)
"""How far back a log that is followed begins, unless said otherwise."""

MAX_RECONNECTS = 6
_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuestion:
    """What is asked for; the fields are the arguments of `RunnersNamespace.logs`."""

    runner_id: str
    since: datetime | None
    until: datetime | None
    search: str | None
    lines: int | None
    oldest: bool


def question(
    runner_id: str,
    *,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    search: str | None,
    lines: int | None,
    oldest: bool,
) -> LogQuestion:
    """The arguments, checked.

    Raises:
        ArgumentError: they contradict each other.
    """
    if follow and until is not None:
        raise ArgumentError("until", "cannot be given together with follow, which goes on until the runner ends")
    if follow and lines is not None:
        raise ArgumentError("lines", "cannot be given together with follow, which goes on until the runner ends")
    if lines is not None and lines < 1:
        raise ArgumentError("lines", f"must be at least 1, not {lines}")
    if since is not None and until is not None and until.astimezone(UTC) < since.astimezone(UTC):
        raise ArgumentError("until", "must not be before since: no line can be between them")
    if follow and since is None:
        since = datetime.now(UTC) - FOLLOW_BACK
    return LogQuestion(runner_id=runner_id, since=since, until=until, search=search, lines=lines, oldest=oldest)


class Reconnects:
    """How often, and after what pauses, a followed log is taken up again when the controller cannot be reached."""

    def __init__(self) -> None:
        self._failures = 0

    def succeeded(self) -> None:
        """Something arrived: the next failure is a first one again."""
        self._failures = 0

    def pause(self, error: UnavailableError, *, resumable: bool) -> float:
        """Seconds to wait before the next try.

        Raises:
            UnavailableError: the given one, if there were too many in a row, or nothing was ever received.
        """
        self._failures += 1
        if not resumable or self._failures > MAX_RECONNECTS:
            raise error
        return min(_LAST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**self._failures)


def history(rest: Rest, asked: LogQuestion) -> list[LogEntry]:
    """Stored lines over HTTP, the oldest first."""
    return collect(rest, asked, rest.log_page)


def collect(rest: Rest, asked: LogQuestion, fetch: Callable[..., LogPage]) -> list[LogEntry]:
    """Go back page by page, as far as is asked for or as there is any.

    A controller gives the newest lines first, so that the oldest N can only be told when all are there.
    """
    started_at, ended_at = rest.runner_times(asked.runner_id)
    since, until = asked.since, asked.until
    if started_at is not None and (since is None or since.astimezone(UTC) < started_at):
        since = started_at
    if until is None and ended_at is not None:
        # The last lines are written while the runner ends.
        until = ended_at + timedelta(seconds=1)
    found: list[LogEntry] = []
    wanted = None if asked.oldest else asked.lines
    while wanted is None or len(found) < wanted:
        page = fetch(asked.runner_id, since=since, until=until, search=asked.search)
        found.extend(page.entries)
        following = _moment(page.next_page_token)
        if following is None or (since is not None and following <= since.astimezone(UTC)):
            break
        if until is not None and following >= until.astimezone(UTC):
            # A controller that does not go back would be asked for ever.
            break
        until = following
    newest_first = found if wanted is None else found[:wanted]
    oldest_first = newest_first[::-1]
    return oldest_first[: asked.lines] if asked.oldest and asked.lines is not None else oldest_first


def stream(rest: Rest, asked: LogQuestion) -> Generator[LogEntry, None, None]:
    """Lines over HTTP as they are written. The search is made here, since controllers do not offer it there."""
    text = (asked.search or "").lower()
    for entry in rest.log_stream(asked.runner_id, since=asked.since, search=asked.search):
        if text in entry.message.lower():
            yield entry


def threaded(entries: Iterator[LogEntry], put: Callable[[LogEntry | BaseException | None], None]) -> None:
    """Run in a thread: hand on each line, then None, or the error that ended them."""
    try:
        for entry in entries:
            put(entry)
        put(None)
    except CallError as error:
        put(error)


def not_listed(runner_id: str) -> NotFoundError:
    """What to raise where a runner is not among those that a controller lists."""
    return NotFoundError(
        f"There is no runner {runner_id}, or it ended long ago; `fal runners list` shows those there are."
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
