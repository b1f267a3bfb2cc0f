"""Log lines as rows of the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from sqlalchemy import CTE, ScalarSelect, case, func, select

from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.tables import LOG_LINES

LogRow: TypeAlias = "tuple[str, int, int, str, str, str, str, str, str, str | None]"
_LEVELS = {level.value: level for level in LogLevel}
_SOURCES = {source.value: source for source in LogSource}


def to_rows(entries: Iterable[LogEntry]) -> list[LogRow]:
    """Return lines as rows. A lone surrogate is replaced, because its whole batch could not be stored."""
    rows: list[LogRow] = []
    # Lines that are read together share their time, and mostly their level and source: each is converted once.
    timestamp, at = None, 0
    level, level_value = LogLevel.INFO, LogLevel.INFO.value
    source, source_value = LogSource.STDOUT, LogSource.STDOUT.value
    for entry in entries:
        if entry.timestamp is not timestamp:
            timestamp = entry.timestamp
            at = to_microseconds(timestamp)
        if entry.level is not level:
            level, level_value = entry.level, entry.level.value
        if entry.source is not source:
            source, source_value = entry.source, entry.source.value
        message = entry.message
        rows.append(
            (
                entry.runner_id,
                entry.sequence,
                at,
                level_value,
                source_value,
                message if message.isascii() else message.encode("utf-8", "replace").decode("utf-8"),
                entry.account,
                entry.app_name,
                entry.revision_id,
                entry.request_id,
            )
        )
    return rows


def from_rows(rows: Iterable[LogRow]) -> list[LogEntry]:
    """Return rows, whose columns are in the table's order, as lines."""
    found: list[LogEntry] = []
    known, at = -1, from_microseconds(0)
    for runner_id, sequence, since, level, source, message, account, app_name, revision_id, request_id in rows:
        if since != known:  # lines that are read together share it
            known, at = since, from_microseconds(since)
        found.append(
            LogEntry(
                runner_id=runner_id,
                sequence=sequence,
                timestamp=at,
                level=_LEVELS[level],
                source=_SOURCES[source],
                message=message,
                account=AccountId(account),
                app_name=app_name,
                revision_id=revision_id,
                request_id=request_id,
            )
        )
    return found


def runners_with_lines() -> CTE:
    """Return the ids of all runners with lines, and NULL. It goes along the primary key, and reads few lines."""
    other = LOG_LINES.alias()
    first = select(func.min(LOG_LINES.c.runner_id).label("runner_id")).cte("runners", recursive=True)
    following = select(func.min(other.c.runner_id)).where(other.c.runner_id > first.c.runner_id).scalar_subquery()
    return first.union_all(select(following).where(first.c.runner_id.is_not(None)))


def first_at(runner_id: str, at: int) -> ScalarSelect[int]:
    """Return a runner's first sequence at or after a time. If there is none, it is beyond the last one.

    A runner's times increase with its sequence, so it bisects the primary key. An index of times would have to be
    written for each line.
    """
    lines = LOG_LINES.c
    of_runner = (
        select(lines.sequence).where(lines.runner_id == runner_id).limit(1)
    )  # min and max together read each line
    lowest = of_runner.order_by(lines.sequence).scalar_subquery()
    highest = of_runner.order_by(lines.sequence.desc()).scalar_subquery()
    begin = select((lowest - 1).label("before"), (highest + 1).label("first")).cte(recursive=True)
    middle = (begin.c.before + begin.c.first) // 2
    line = select(lines.timestamp).where(lines.runner_id == runner_id, lines.sequence >= middle)
    earlier = line.order_by(lines.sequence).limit(1).scalar_subquery() < at
    halves = select(case((earlier, middle), else_=begin.c.before), case((earlier, begin.c.first), else_=middle))
    steps = begin.union_all(halves.where(begin.c.first - begin.c.before > 1))
    return select(func.min(steps.c.first)).scalar_subquery()
