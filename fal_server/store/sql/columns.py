"""Column types of our own: timestamps, and text that every database can hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Dialect, String
from sqlalchemy.types import TypeDecorator

from fal_server.store.sql.dialect import SQLITE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# PostgreSQL's text cannot contain NUL. U+FDD0 marks one, because Unicode reserves it for programs and no text should
# contain it; a text that does has it marked, too.
_MARK = "\ufdd0"
_MARKED_NUL, _MARKED_MARK = _MARK + "0", _MARK + "1"


def to_microseconds(at: datetime) -> int:
    """Return an aware datetime as exact microseconds since 1970.

    Raises:
        ValueError: it is naive.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at!r} is naive: times are stored in UTC")
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(since: int) -> datetime:
    """Return the inverse of `to_microseconds`, in UTC."""
    return _EPOCH + timedelta(microseconds=since)


def without_nul(text: str) -> str:
    """Return a text without NUL, for PostgreSQL; `with_nul` is the inverse."""
    if "\0" in text or _MARK in text:
        return text.replace(_MARK, _MARKED_MARK).replace("\0", _MARKED_NUL)
    return text


def with_nul(text: str) -> str:
    """Return the inverse of `without_nul`."""
    return text.replace(_MARKED_NUL, "\0").replace(_MARKED_MARK, _MARK) if _MARK in text else text


class UtcTimestamp(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970: exact, ordered, and the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_microseconds(value)


class Text(TypeDecorator[str]):
    """Any text; a NUL is marked if the database cannot store one (SQLite can)."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None or dialect.name == SQLITE else without_nul(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None or dialect.name == SQLITE else with_nul(value)
