"""Our own column types: timestamps, and text that every database can hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from sqlalchemy import BigInteger, Dialect, String
from sqlalchemy.types import TypeDecorator

from fal_server.store.sql.dialect import SQLITE, with_nul, without_nul

Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


class _Processor(Protocol[Given, Made]):
    """Converts one value on its way into the database or out."""

    def __call__(self, value: Given | None) -> Made | None: ...


class UtcTimestamp(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970. It is exact, ordered, and the same in every database."""

    impl = BigInteger
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> _Processor[datetime, int]:
        return _to_microseconds

    def result_processor(self, dialect: Dialect, coltype: object) -> _Processor[int, datetime]:
        return _from_stored


class Text(TypeDecorator[str]):
    """Any text. A NUL is marked if the database cannot store one (SQLite can)."""

    impl = String
    cache_ok = True

    # SQLite needs no processors: without them a long list is read in half of the time.

    def bind_processor(self, dialect: Dialect) -> _Processor[str, str] | None:
        return None if dialect.name == SQLITE else _to_stored

    def result_processor(self, dialect: Dialect, coltype: object) -> _Processor[str, str] | None:
        return None if dialect.name == SQLITE else _from_marked


def _to_microseconds(value: datetime | None) -> int | None:
    return None if value is None else to_microseconds(value)


def _from_stored(value: int | None) -> datetime | None:
    return None if value is None else from_microseconds(value)


def _to_stored(value: str | None) -> str | None:
    return None if value is None else without_nul(value)


def _from_marked(value: str | None) -> str | None:
    return None if value is None else with_nul(value)
