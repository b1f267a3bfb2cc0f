"""Limits the log bytes per minute of an account's runners. It drops further lines, and logs that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.quotas import QuotasOf
from fal_server.ports import Clock

_MINUTE = timedelta(minutes=1)
_LINE_BYTES = 64
"""The approximate size of a line besides its message: its time, its runner, its app."""


@dataclass(slots=True)
class _Minute:
    """An account's bytes since a time, and its runners' dropped line counts."""

    since: datetime
    size: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])


class LogBounds:
    """Admits lines until the quota of their account is used up.

    Counted: by the process that stores the lines.
    """

    def __init__(self, quotas: QuotasOf, clock: Clock) -> None:
        self._quotas = quotas
        self._clock = clock
        self._minutes: dict[AccountId, _Minute] = {}

    def admitted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return the lines to store. One line marks where lines begin to be missing, and one says how many."""
        if not any(self._quotas(account).log_bytes_per_minute for account in {entry.account for entry in entries}):
            return entries
        kept: list[LogEntry] = []
        for entry in entries:
            most = self._quotas(entry.account).log_bytes_per_minute
            kept += self._one(entry, most) if most else (entry,)
        return kept

    def used(self, account: AccountId) -> int:
        """Return how many bytes were written in this minute."""
        minute = self._minutes.get(account)
        return 0 if minute is None or self._clock.now() - minute.since >= _MINUTE else minute.size

    def runner_ended(self, account: AccountId, runner_id: str) -> None:
        """Drop the state of a runner that writes no more."""
        if (minute := self._minutes.get(account)) is not None:
            minute.dropped.pop(runner_id, None)

    def _one(self, entry: LogEntry, most: int) -> Sequence[LogEntry]:
        now = self._clock.now()
        minute = self._minutes.get(entry.account)
        if minute is None:
            minute = self._minutes[entry.account] = _Minute(now)
        elif now - minute.since >= _MINUTE:
            minute.since, minute.size = now, 0
        size = _LINE_BYTES + len(entry.message.encode(errors="surrogatepass"))
        runner_id = entry.runner_id
        if minute.size + size > most:
            before = minute.dropped.get(runner_id, 0)
            minute.dropped[runner_id] = before + 1
            ends = f"{minute.since + _MINUTE:%H:%M:%S}"
            text = f"lines are dropped from here until {ends} UTC: the account may log {most} bytes a minute"
            return () if before else (_marker(entry, text),)
        minute.size += size
        dropped = minute.dropped.pop(runner_id, 0)
        if not dropped:
            return (entry,)
        # The number of the last dropped line is free: only the first one's is used.
        said = _marker(entry, f"{dropped} lines dropped, which were more than the account's quota allows")
        return (replace(said, sequence=entry.sequence - 1), entry) if dropped > 1 else (entry,)


def _marker(entry: LogEntry, text: str) -> LogEntry:
    return replace(entry, level=LogLevel.WARNING, source=LogSource.SYSTEM, message=text, request_id=None)
