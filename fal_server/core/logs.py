"""Log lines, and queries for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fal_server.core.identity import AccountId

_UNKNOWN = AccountId("")


class LogSource(StrEnum):
    """The origin of a line. It is the environment's build, the platform, or one of the app's streams."""

    BUILD = "build"
    SYSTEM = "system"
    STDOUT = "stdout"
    STDERR = "stderr"


class LogLevel(StrEnum):
    """The severity of a line."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(unsafe_hash=True, slots=True, kw_only=True)
class LogEntry:
    """One line. (runner_id, sequence) is unique: a second copy is dropped.

    Treat it as frozen. It is not declared so because creating a frozen object takes three times as long, and every line
    needs one.

    Attributes:
        sequence: counts a runner's lines from 1, without gaps.
        account, app_name, revision_id: those of the runner. A build does not know them: they are set before its lines
            are stored, and nobody can read a stored line without an account.
        request_id: the request that it was written for, if known.
    """

    runner_id: str
    sequence: int
    timestamp: datetime
    level: LogLevel
    source: LogSource
    message: str
    account: AccountId = _UNKNOWN
    app_name: str = ""
    revision_id: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Selects lines; None means no restriction.

    Attributes:
        since: lines at or after this.
        until: lines before this.
        search: a substring, case-insensitive.
        newest_first: the order of the lines, and so the end from which `limit` counts.
        after: only lines after this `LogPage.cursor`, in the same order.
        above: only lines of a runner with a higher sequence than this.
        limit: the most lines, 1 to 10,000.
        reads: about how many lines to read for one page of a search, which may then be short, or empty.
    """

    runner_id: str | None = None
    app_name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    sources: tuple[LogSource, ...] = ()
    request_id: str | None = None
    newest_first: bool = False
    after: str | None = None
    above: int = 0
    limit: int = 1000
    reads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page of lines, and whether there were more. It has the cursor to resume from.

    Attributes:
        reached: the time of the last line read, which may be beyond the last match.
    """

    entries: tuple[LogEntry, ...]
    cursor: str
    more: bool
    reached: datetime | None = None
