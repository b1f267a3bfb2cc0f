"""The request history in the database. It has rows for requests, kept payloads, and each app's minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeAlias, cast

from sqlalchemy import ColumnElement, RowMapping, bindparam, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.payloads import KeptPayload
from fal_server.core.requests import (
    MinuteKey,
    RequestPage,
    RequestQuery,
    RequestRecord,
    RequestStats,
    RequestStatus,
    cursor_after,
    position_of,
)
from fal_server.core.sketch import DurationSketch
from fal_server.ports import Vault
from fal_server.store.sql import dialect
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.database import Database
from fal_server.store.sql.prepared import Prepared, prepared
from fal_server.store.sql.tables import ACCOUNTS, REQUEST_MINUTES, REQUEST_PAYLOADS, REQUEST_RECORDS, owned_by

_Numbers: TypeAlias = "dict[str, object]"
_FORGET_BATCH = 5_000
_KEY = (REQUEST_MINUTES.c.account, REQUEST_MINUTES.c.app_name, REQUEST_MINUTES.c.endpoint, REQUEST_MINUTES.c.at)
_MINUTE = Prepared(select(REQUEST_MINUTES.c.numbers).where(*(column == bindparam(column.name) for column in _KEY)))
_SKETCHES = ("wait", "run", "total", "cold")


class SqlRequestStore:
    """Implements the port RequestStore in a Store's database. The Store closes it.

    Args:
        vault: seals payloads.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add(self, records: Sequence[RequestRecord], minutes: Mapping[MinuteKey, RequestStats]) -> None:
        async def both(connection: AsyncConnection) -> None:
            if records:
                statement = prepared(dialect.insert_missing(connection, REQUEST_RECORDS))
                await statement.insert_each(connection, [_to_row(record) for record in records])
            for key, numbers in minutes.items():
                await _add_minute(connection, key, numbers)

        await self._database.write(both)

    async def page(self, account: AccountId, query: RequestQuery) -> RequestPage:
        rows = REQUEST_RECORDS.c
        order = (rows.ended_at, rows.request_id)
        chosen = select(REQUEST_RECORDS).where(owned_by(REQUEST_RECORDS, account), *_conditions(query))
        chosen = chosen.order_by(*(order if query.oldest_first else (column.desc() for column in order)))

        async def work(connection: AsyncConnection) -> list[RequestRecord]:
            found = await connection.execute(chosen.limit(query.limit + 1))
            return [_from_row(row) for row in found.mappings()]

        found = await self._database.read(work)
        records = tuple(found[: query.limit])
        cursor = cursor_after(records[-1], to_microseconds(records[-1].ended_at)) if records else query.after or ""
        return RequestPage(records=records, cursor=cursor, more=len(found) > query.limit)

    async def minutes(
        self, account: AccountId, app_name: str | None, since: datetime, until: datetime
    ) -> Sequence[tuple[MinuteKey, RequestStats]]:
        rows = REQUEST_MINUTES.c
        chosen = select(REQUEST_MINUTES).where(owned_by(REQUEST_MINUTES, account), rows.at >= since, rows.at < until)
        if app_name is not None:
            chosen = chosen.where(rows.app_name == app_name)

        async def work(connection: AsyncConnection) -> list[tuple[MinuteKey, RequestStats]]:
            found = await connection.execute(chosen.order_by(rows.at, rows.app_name, rows.endpoint))
            return [(_key_of(row), from_numbers(cast("_Numbers", row["numbers"]))) for row in found.mappings()]

        return await self._database.read(work)

    async def add_payloads(self, payloads: Sequence[KeptPayload]) -> None:
        rows = [
            {
                "account": each.account,
                "request_id": each.request_id,
                "ended_at": each.ended_at,
                "sealed_input": self._sealed(each.request_id, "input", each.input),
                "sealed_output": self._sealed(each.request_id, "output", each.output),
            }
            for each in payloads
        ]

        async def work(connection: AsyncConnection) -> None:
            await prepared(dialect.insert_missing(connection, REQUEST_PAYLOADS)).insert_each(connection, rows)

        await self._database.write(work)

    async def payload(self, account: AccountId, request_id: str) -> KeptPayload | None:
        chosen = select(REQUEST_PAYLOADS).where(
            owned_by(REQUEST_PAYLOADS, account), REQUEST_PAYLOADS.c.request_id == request_id
        )

        async def work(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(chosen)).mappings().one_or_none()

        row = await self._database.read(work)
        if row is None:
            return None
        return KeptPayload(
            account=account,
            request_id=request_id,
            ended_at=row["ended_at"],
            input=self._opened(request_id, "input", row["sealed_input"]),
            output=self._opened(request_id, "output", row["sealed_output"]),
        )

    def _sealed(self, request_id: str, part: str, body: bytes | None) -> bytes | None:
        return None if body is None else self._vault.seal_bytes(f"payload/{request_id}/{part}", body)

    def _opened(self, request_id: str, part: str, sealed: bytes | None) -> bytes | None:
        return None if sealed is None else self._vault.open_bytes(f"payload/{request_id}/{part}", sealed)

    async def forget(self, before: datetime) -> int:
        """Delete them in transactions of some thousands. Writers get their turn in between."""
        rows = REQUEST_RECORDS.c
        key = (rows.account, rows.ended_at, rows.request_id)

        async def accounts(connection: AsyncConnection) -> Sequence[str]:
            return (await connection.execute(select(ACCOUNTS.c.account))).scalars().all()

        async def some(connection: AsyncConnection, account: str) -> int:
            old = select(*key).where(rows.account == account, rows.ended_at < before).limit(_FORGET_BATCH)
            return (await connection.execute(delete(REQUEST_RECORDS).where(tuple_(*key).in_(old)))).rowcount

        async def minutes(connection: AsyncConnection) -> int:
            old = select(*_KEY).where(REQUEST_MINUTES.c.at < before).limit(_FORGET_BATCH)
            return (await connection.execute(delete(REQUEST_MINUTES).where(tuple_(*_KEY).in_(old)))).rowcount

        async def payloads(connection: AsyncConnection) -> int:
            its = tuple(REQUEST_PAYLOADS.primary_key)
            old = select(*its).where(REQUEST_PAYLOADS.c.ended_at < before).limit(_FORGET_BATCH)
            return (await connection.execute(delete(REQUEST_PAYLOADS).where(tuple_(*its).in_(old)))).rowcount

        total = 0
        for account in await self._database.read(accounts):
            while deleted := await self._database.write(partial(some, account=account)):
                total += deleted
        for others in (minutes, payloads):
            while await self._database.write(others):
                continue
        return total


async def _add_minute(connection: AsyncConnection, key: MinuteKey, numbers: RequestStats) -> None:
    """Add statistics to a row, which may exist. An endpoint's minute is written about sixty times."""
    here = key._asdict()
    before = await _MINUTE.rows(connection, here)
    merged = from_numbers(cast("_Numbers", before[0]["numbers"])) if before else RequestStats()
    merged.merge(numbers)
    row = {**here, "numbers": to_numbers(merged)}
    await prepared(dialect.upsert(connection, REQUEST_MINUTES)).change(connection, row)


def _conditions(query: RequestQuery) -> list[ColumnElement[bool]]:
    rows = REQUEST_RECORDS.c
    equal = {
        rows.app_name: query.app_name,
        rows.endpoint: query.endpoint,
        rows.runner_id: query.runner_id,
        rows.key_id: query.key_id,
        rows.request_id: query.request_id,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if query.since is not None:
        conditions.append(rows.ended_at >= query.since)
    if query.until is not None:
        conditions.append(rows.ended_at < query.until)
    match query.status:
        case RequestStatus.SUCCESS:
            conditions.append(rows.code < 400)
        case RequestStatus.USER_ERROR:
            conditions.append(rows.code.between(400, 499))
        case RequestStatus.ERROR:
            conditions.append(rows.code >= 500)
        case RequestStatus.LEFT:
            conditions.append(rows.code.is_(None))
        case None:
            pass
    if query.after:
        try:
            at, request_id = position_of(query.after)
            place = (from_microseconds(at), request_id)
        except (ValueError, OverflowError):
            raise InvalidArgument(
                "page_token", "the page token was not given out by this controller: begin again without one"
            ) from None
        here = tuple_(rows.ended_at, rows.request_id)
        conditions.append(here > place if query.oldest_first else here < place)
    return conditions


def _to_row(record: RequestRecord) -> dict[str, object]:
    return {
        "account": record.account,
        "ended_at": record.ended_at,
        "request_id": record.request_id,
        "app_name": record.app_name,
        "revision_id": record.revision_id,
        "runner_id": record.runner_id,
        "endpoint": record.endpoint,
        "method": record.method,
        "key_id": record.key_id,
        "queued": record.queued,
        "received_at": record.received_at,
        "started_at": record.started_at,
        "code": record.code,
        "error_type": record.error_type,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "attempt": record.attempt,
        "cold_start": record.cold_start,
    }


def _from_row(row: RowMapping) -> RequestRecord:
    return RequestRecord(**{str(name): value for name, value in row.items()})


def _key_of(row: RowMapping) -> MinuteKey:
    return MinuteKey(AccountId(row["account"]), row["app_name"], row["endpoint"], row["at"])


def to_numbers(stats: RequestStats) -> _Numbers:
    """Return statistics as JSON, without empty parts."""
    found: _Numbers = {"in": stats.bytes_in, "out": stats.bytes_out}
    if stats.codes:
        found["codes"] = {str(code): count for code, count in stats.codes.items()}
    if stats.errors:
        found["errors"] = dict(stats.errors)
    for name in _SKETCHES:
        sketch: DurationSketch = getattr(stats, name)
        if sketch.counts:
            found[name] = [sketch.seconds, {str(bucket): count for bucket, count in sketch.counts.items()}]
    return found


def from_numbers(numbers: _Numbers) -> RequestStats:
    """Return the inverse of `to_numbers`."""
    codes = cast("dict[str, int]", numbers.get("codes", {}))
    sketches = {
        name: DurationSketch({int(bucket): count for bucket, count in counts.items()}, seconds)
        for name in _SKETCHES
        for seconds, counts in [cast("tuple[float, dict[str, int]]", numbers.get(name, (0.0, {})))]
    }
    return RequestStats(
        codes=Counter({int(code): count for code, count in codes.items()}),
        errors=Counter(cast("dict[str, int]", numbers.get("errors", {}))),
        bytes_in=cast("int", numbers["in"]),
        bytes_out=cast("int", numbers["out"]),
        **sketches,
    )
