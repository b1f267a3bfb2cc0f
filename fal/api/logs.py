"""Log lines: what may be asked, how a followed log is taken up again, and the HTTP requests of other controllers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fal_grpc.adapter.log import LogOrigin
from fal_grpc.errors import ArgumentError, CallError, NotFoundError, UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal_grpc.adapter.log import LogEntry, LogPage

log = logging.getLogger(__name__)

FOLLOW_BACK = timedelta(minutes=1)
"""How far back a log that is followed begins, unless said otherwise."""

MAX_RECONNECTS = 120
"""Tries in a row to take up a followed log: about ten minutes."""

_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 5.0
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuestion:
    """What is asked for, of a runner or of an app; the fields are the arguments of `logs` in the namespaces."""

    runner_id: str | None = None
    app: str | None = None
    environment_name: str | None = None
    since: datetime | None
    until: datetime | None
    search: str | None
    lines: int | None
    oldest: bool
    sources: tuple[LogOrigin, ...] = ()
    request_id: str | None = None


def question(
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
) -> LogQuestion:
    """The arguments, checked.

    Raises:
        ArgumentError: they contradict each other, or make no sense.
    """
    if follow and until is not None:
        raise ArgumentError("until", "cannot be given together with follow, which goes on until the runner ends")
    if follow and oldest:
        raise ArgumentError("oldest", "cannot be given together with follow: use since")
    if lines is not None and lines < 1:
        raise ArgumentError("lines", f"must be at least 1, not {lines}")
    if since is not None and until is not None and until.astimezone(UTC) < since.astimezone(UTC):
        raise ArgumentError("until", "must not be before since: no line can be between them")
    if follow and since is None and lines is None:
        since = datetime.now(UTC) - FOLLOW_BACK
    return LogQuestion(
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
    for source in sources:
        if source not in known:
            raise ArgumentError("sources", f"must be among {', '.join(known)}, not {source!r}")
    return tuple(LogOrigin(source) for source in sources)


class Joint:
    """Where the newest stored lines and those that are followed from there on meet: no gap, and no line twice.

    Args:
        asked: the question, with `lines`.
        shown: the newest lines, the oldest first.
    """

    def __init__(self, asked: LogQuestion, shown: Sequence[LogEntry]) -> None:
        # Without any, all that comes is new.
        since = shown[0].timestamp if shown else asked.since or _BEGINNING
        self.rest = replace(asked, since=since, lines=None)
        self._shown = {(entry.runner_id, entry.sequence) for entry in shown}
        self._first = _place(shown[0]) if shown else None

    def is_new(self, entry: LogEntry) -> bool:
        """Whether it was not among the newest, nor before them: lines that were read together have the same time."""
        if self._first is not None and _place(entry) < self._first:
            return False
        return (entry.runner_id, entry.sequence) not in self._shown


def _place(entry: LogEntry) -> tuple[datetime, str, int]:
    """Where a line stands in the order in which the lines of an app are merged."""
    return entry.timestamp, entry.runner_id, entry.sequence


class Reconnects:
    """How often, and after what pauses, a followed log is taken up again when the controller cannot be reached.

    What happens is told to the logger `fal.api.logs`, at INFO.
    """

    def __init__(self) -> None:
        self._failures = 0

    def succeeded(self) -> None:
        """Something arrived: the next failure is a first one again."""
        if self._failures:
            log.info("The controller is reached again: the log goes on where it was.")
        self._failures = 0

    def pause(self, error: UnavailableError | None, *, resumable: bool) -> float:
        """Seconds to wait before the next try.

        Args:
            error: what ended the stream; None where it ended in silence, though the runner has not.
            resumable: whether there is a place to go on from.

        Raises:
            UnavailableError: the given one, if there were too many in a row, or nothing was ever received.
        """
        self._failures += 1
        error = error or UnavailableError("The controller ended the stream of log lines.")
        if not resumable or self._failures > MAX_RECONNECTS:
            raise error
        if self._failures == 1:
            log.info("The connection to the controller broke; trying to go on from the last line that was received.")
        return min(_LAST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))


def over_http(asked: LogQuestion, error: UnimplementedError) -> str:
    """The runner to ask for over HTTP, where a controller does not know our rpcs.

    Raises:
        UnimplementedError: it cannot answer this question.
    """
    if asked.runner_id is None or asked.sources or asked.request_id:
        raise UnimplementedError(
            "This controller gives the lines of one runner at a time, whatever they came from: "
            "`fal runners list` shows the runners, `fal runners logs ID` their lines."
        ) from error
    return asked.runner_id


def history(rest: Rest, asked: LogQuestion) -> list[LogEntry]:
    """Stored lines over HTTP, the oldest first."""
    return collect(rest, asked, rest.log_page)


def collect(rest: Rest, asked: LogQuestion, fetch: Callable[..., LogPage]) -> list[LogEntry]:
    """Go back page by page, as far as is asked for or as there is any.

    A controller gives the newest lines first, so that the oldest N can only be told when all are there.
    """
    runner_id = asked.runner_id or ""
    started_at, ended_at = rest.runner_times(runner_id)
    since, until = asked.since, asked.until
    if started_at is not None and (since is None or since.astimezone(UTC) < started_at):
        since = started_at
    if until is None and ended_at is not None:
        # The last lines are written while the runner ends.
        until = ended_at + timedelta(seconds=1)
    found: list[LogEntry] = []
    wanted = None if asked.oldest else asked.lines
    while wanted is None or len(found) < wanted:
        page = fetch(runner_id, since=since, until=until, search=asked.search)
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
    for entry in rest.log_stream(asked.runner_id or "", since=asked.since, search=asked.search):
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
