"""The queue's requests in the database; headers, bodies and responses are sealed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from io import BytesIO
from typing import cast

from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import Unavailable
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.queue import Answer, Content, Priority, QueuedRequest, State, WebhookState
from fal_server.core.webhooks import Delivery
from fal_server.ports import Vault
from fal_server.ports.queue import RequestFilter
from fal_server.store.sql import dialect
from fal_server.store.sql.database import Database
from fal_server.store.sql.prepared import Prepared, prepared
from fal_server.store.sql.tables import REQUEST_CONTENTS, REQUEST_PARTS, REQUESTS, WEBHOOK_DELIVERIES, owned_by
from fal_server.store.sql.together import Together

_FORGET_BATCH = 500
# The approximate size for a request that is older than this column, because sealing makes it larger.
_BODY_SIZE = func.coalesce(REQUEST_CONTENTS.c.body_bytes, func.length(REQUEST_CONTENTS.c.sealed_body))
# Built once: building a statement costs more than executing it.
_CONTENTS = REQUEST_CONTENTS.c
_ADD_CONTENT = Prepared(insert(REQUEST_CONTENTS), row=("request_id", _CONTENTS.request_id))
_CHANGE_CONTENT = Prepared(
    update(REQUEST_CONTENTS).where(_CONTENTS.request_id == bindparam("changed_id")),
    row=("changed_id", _CONTENTS.request_id),
)
_PARTS = REQUEST_PARTS.c
_PART_BYTES = 1024 * 1024
_ADD_PART = Prepared(insert(REQUEST_PARTS))
_PART = Prepared(
    select(_PARTS.sealed).where(_PARTS.request_id == bindparam("of_request"), _PARTS.number == bindparam("of_number"))
)
# What the start and the end of an attempt change: an index costs time even if its column gets the value that it has.
_START = ("state", "attempt", "started_at", "not_before", "lease_until", "runner_id", "alone")
_END = ("state", "not_before", "lease_until", "completed_at", "status", "error", "error_type", "dead")
_END_WITH_WEBHOOK = (*_END, "webhook", "webhook_at")
_ALL = tuple(name for name in QueuedRequest.__slots__ if name != "request_id")
_CONTENT = Prepared(
    select(_CONTENTS.request_id, _CONTENTS.sealed_request, _CONTENTS.sealed_body, _CONTENTS.body_bytes)
    .join(REQUESTS, REQUESTS.c.request_id == _CONTENTS.request_id)
    .where(owned_by(REQUESTS, bindparam("of_account")), _CONTENTS.request_id == bindparam("of_request")),
    row=("of_request", _CONTENTS.request_id),
)


class SqlQueueStore:
    """Implements the port QueueStore in a Store's database. The Store closes it.

    Args:
        vault: seals headers, bodies and webhooks' addresses.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add(self, request: QueuedRequest, content: Content) -> QueuedRequest:
        in_parts = len(content.body) > _PART_BYTES
        sealed = {
            "request_id": request.request_id,
            "sealed_request": self._seal(
                request.request_id, "request", _head(content.headers, url=content.webhook_url)
            ),
            "sealed_body": self._seal_bytes(request.request_id, "body", b"" if in_parts else content.body),
            "body_bytes": len(content.body),
        }

        async def work(connection: AsyncConnection) -> QueuedRequest:
            # Insert first, then look: the constraint admits one of two concurrent inserts, and the other finds it.
            insert_new = dialect.insert_missing(connection, REQUESTS, unique="idempotency")
            accept = prepared(insert_new, row=("request_id", REQUESTS.c.request_id))
            while not await accept.change(connection, to_row(request)):
                query = select(REQUESTS).where(REQUESTS.c.idempotency == request.idempotency)
                taken = (await connection.execute(query)).mappings().one_or_none()
                if taken is not None:  # otherwise it was deleted meanwhile, because it was too old
                    return from_row(taken)
            await _ADD_CONTENT.change(connection, sealed)
            if in_parts:
                await self._add_parts(connection, request.request_id, content.body)
            return request

        return await self._database.write(Together(work))

    async def load(self) -> list[QueuedRequest]:
        query = select(REQUESTS).where(REQUESTS.c.state != State.COMPLETED.value)
        query = query.order_by(REQUESTS.c.created_at, REQUESTS.c.request_id)

        async def work(connection: AsyncConnection) -> list[QueuedRequest]:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def body_sizes(self) -> Mapping[str, int]:
        query = select(REQUEST_CONTENTS.c.request_id, _BODY_SIZE).join(REQUESTS)
        query = query.where(REQUESTS.c.state != State.COMPLETED.value)

        async def work(connection: AsyncConnection) -> dict[str, int]:
            return {row[0]: int(row[1]) for row in await connection.execute(query)}

        return await self._database.read(work)

    async def sizes_of(self, account: AccountId, request_ids: Sequence[str]) -> Mapping[str, int]:
        query = select(REQUEST_CONTENTS.c.request_id, _BODY_SIZE).join(REQUESTS)
        query = query.where(owned_by(REQUESTS, account), REQUESTS.c.request_id.in_(request_ids))

        async def work(connection: AsyncConnection) -> dict[str, int]:
            return {row[0]: int(row[1]) for row in await connection.execute(query)}

        return await self._database.read(work)

    async def get(self, account: Accounts, request_id: str) -> QueuedRequest | None:
        query = select(REQUESTS).where(owned_by(REQUESTS, account), REQUESTS.c.request_id == request_id)

        async def work(connection: AsyncConnection) -> QueuedRequest | None:
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else from_row(row)

        return await self._database.read(work)

    async def content(self, account: AccountId, request_id: str) -> Content | None:
        return await self._database.read(lambda connection: self._content(connection, account, request_id))

    async def answer(self, account: AccountId, request_id: str) -> Answer | None:
        contents = REQUEST_CONTENTS.c
        query = (
            select(REQUESTS.c.status, contents.sealed_answer, contents.sealed_answer_body)
            .join(REQUEST_CONTENTS, REQUESTS.c.request_id == contents.request_id)
            .where(owned_by(REQUESTS, account), REQUESTS.c.request_id == request_id)
            .where(REQUESTS.c.state == State.COMPLETED.value)
        )

        async def work(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(query)).mappings().one_or_none()

        row = await self._database.read(work)
        if row is None or row["sealed_answer"] is None:
            return None
        headers, _ = _parsed(self._open(request_id, "answer", row["sealed_answer"]))
        body = self._open_bytes(request_id, "answer body", row["sealed_answer_body"])
        return Answer(status=row["status"], headers=headers, body=body)

    async def find(self, account: AccountId, query: RequestFilter) -> list[QueuedRequest]:
        rows = REQUESTS.c
        chosen = select(REQUESTS).where(owned_by(REQUESTS, account), rows.app_name == query.app_name)
        if query.state is not None:
            chosen = chosen.where(rows.state == query.state.value)
        if query.dead is not None:
            chosen = chosen.where(rows.dead == query.dead)
        if query.caller is not None:
            chosen = chosen.where(rows.caller == query.caller)
        if query.request_ids is not None:
            chosen = chosen.where(rows.request_id.in_(query.request_ids))
        chosen = chosen.order_by(rows.created_at.desc(), rows.request_id.desc()).limit(query.limit)

        async def work(connection: AsyncConnection) -> list[QueuedRequest]:
            return [from_row(row) for row in (await connection.execute(chosen)).mappings()]

        return await self._database.read(work)

    async def begin(self, request: QueuedRequest) -> Content | None:

        async def work(connection: AsyncConnection) -> Content | None:
            if not await _change(connection, request, State.IN_QUEUE, request.attempt - 1, _START):
                return None
            return await self._content(connection, request.account, request.request_id)

        return await self._database.write(Together(work))

    async def put_back(self, request: QueuedRequest, attempt: int) -> bool:
        return await self._database.write(
            Together(lambda connection: _change(connection, request, State.IN_PROGRESS, attempt, _ALL))
        )

    async def complete(self, request: QueuedRequest, answer: Answer) -> bool:
        sealed = self._sealed(request, answer)
        columns = _END if request.webhook is WebhookState.NONE else _END_WITH_WEBHOOK

        async def work(connection: AsyncConnection) -> bool:
            if not await _change(connection, request, None, request.attempt, columns):
                return False
            await _CHANGE_CONTENT.change(connection, {"changed_id": request.request_id, **sealed})
            return True

        return await self._database.write(Together(work))

    async def complete_all(self, requests: Sequence[QueuedRequest], answer: Answer) -> set[str]:
        sealed = {request.request_id: self._sealed(request, answer) for request in requests}

        async def work(connection: AsyncConnection) -> set[str]:
            changed = await _change_all(connection, requests, None)
            for one in sorted(changed):
                await _CHANGE_CONTENT.change(connection, {"changed_id": one, **sealed[one]})
            return changed

        return await self._database.write(work)

    async def revive(self, requests: Sequence[QueuedRequest]) -> Mapping[str, int]:
        async def work(connection: AsyncConnection) -> Mapping[str, int]:
            changed = await _change_all(connection, requests, State.COMPLETED)
            contents = update(REQUEST_CONTENTS).where(REQUEST_CONTENTS.c.request_id.in_(changed))
            await connection.execute(contents.values({"sealed_answer": None, "sealed_answer_body": None}))
            tries = WEBHOOK_DELIVERIES.c.request_id
            await connection.execute(delete(WEBHOOK_DELIVERIES).where(tries.in_(changed)))
            sizes = select(REQUEST_CONTENTS.c.request_id, _BODY_SIZE).where(REQUEST_CONTENTS.c.request_id.in_(changed))
            return {row[0]: int(row[1]) for row in await connection.execute(sizes)}

        return await self._database.write(work)

    async def forget(self, completed_before: datetime, dead_before: datetime) -> int:
        """Delete old requests in transactions of some hundreds. Writers get their turn in between."""
        rows = REQUESTS.c
        old = or_(
            and_(rows.dead.is_(False), rows.completed_at < completed_before),
            and_(rows.dead.is_(True), rows.completed_at < dead_before),
        )
        chosen = select(rows.request_id).where(rows.state == State.COMPLETED.value, old).limit(_FORGET_BATCH)

        async def some(connection: AsyncConnection) -> int:
            found = (await connection.execute(chosen)).scalars().all()
            if found:
                for table in (WEBHOOK_DELIVERIES, REQUEST_PARTS, REQUEST_CONTENTS, REQUESTS):
                    await connection.execute(delete(table).where(table.c.request_id.in_(found)))
            return len(found)

        total = 0
        while deleted := await self._database.write(some):
            total += deleted
        return total

    async def due_webhooks(self, now: datetime, limit: int) -> list[QueuedRequest]:
        rows = REQUESTS.c
        pending = (rows.webhook == WebhookState.PENDING.value, rows.webhook_at <= now)
        query = select(REQUESTS).where(*pending).order_by(rows.webhook_at, rows.request_id).limit(limit)

        async def work(connection: AsyncConnection) -> list[QueuedRequest]:
            return [from_row(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def next_webhook_at(self) -> datetime | None:
        pending = REQUESTS.c.webhook == WebhookState.PENDING.value
        query = select(REQUESTS.c.webhook_at).where(pending).order_by(REQUESTS.c.webhook_at).limit(1)

        async def work(connection: AsyncConnection) -> datetime | None:
            found: datetime | None = (await connection.execute(query)).scalar()
            return found

        return await self._database.read(work)

    async def delivered(self, request: QueuedRequest, delivery: Delivery) -> None:
        """Record an attempt; do nothing if the request was queued again meanwhile."""
        rows = REQUESTS.c
        standing = {
            "webhook": request.webhook.value,
            "webhook_attempts": request.webhook_attempts,
            "webhook_at": request.webhook_at,
        }
        here = and_(rows.request_id == request.request_id, rows.state == State.COMPLETED.value)
        here = and_(here, rows.webhook_attempts == request.webhook_attempts - 1)

        async def work(connection: AsyncConnection) -> None:
            if (await connection.execute(update(REQUESTS).where(here).values(standing))).rowcount:
                await connection.execute(insert(WEBHOOK_DELIVERIES), asdict(delivery))

        await self._database.write(work)

    async def deliveries(self, account: AccountId, request_id: str) -> list[Delivery]:
        tries = WEBHOOK_DELIVERIES.c
        query = select(WEBHOOK_DELIVERIES).join(REQUESTS, REQUESTS.c.request_id == tries.request_id)
        query = query.where(owned_by(REQUESTS, account), tries.request_id == request_id).order_by(tries.number)

        async def work(connection: AsyncConnection) -> list[Delivery]:
            return [Delivery(**row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def _content(self, connection: AsyncConnection, account: AccountId, request_id: str) -> Content | None:
        rows = await _CONTENT.rows(connection, {"of_account": account, "of_request": request_id})
        if not rows:
            return None
        sealed = cast("Mapping[str, bytes]", rows[0])
        headers, url = _parsed(self._open(request_id, "request", sealed["sealed_request"]))
        body = self._open_bytes(request_id, "body", sealed["sealed_body"])
        size = cast("int | None", rows[0]["body_bytes"])
        if not body and size:
            body = await self._parts(connection, request_id, size)
        return Content(headers=headers, body=body, webhook_url=url)

    async def _add_parts(self, connection: AsyncConnection, request_id: str, body: bytes) -> None:
        """Write a body part by part. No second copy of it is in memory."""
        for number, start in enumerate(range(0, len(body), _PART_BYTES)):
            part = self._seal_bytes(request_id, f"body part {number}", body[start : start + _PART_BYTES])
            await _ADD_PART.change(connection, {"request_id": request_id, "number": number, "sealed": part})

    async def _parts(self, connection: AsyncConnection, request_id: str, size: int) -> bytes:
        """Read a body part by part.

        Raises:
            Unavailable: a part is missing.
        """
        body = BytesIO()  # its getvalue() makes no copy
        for number in range(-(-size // _PART_BYTES)):
            rows = await _PART.rows(connection, {"of_request": request_id, "of_number": number})
            if not rows:
                raise Unavailable(f"a part of the body of request {request_id} is missing in the database")
            body.write(self._open_bytes(request_id, f"body part {number}", cast("bytes", rows[0]["sealed"])))
        return body.getvalue()

    def _sealed(self, request: QueuedRequest, answer: Answer) -> dict[str, bytes]:
        return {
            "sealed_answer": self._seal(request.request_id, "answer", _head(answer.headers)),
            "sealed_answer_body": self._seal_bytes(request.request_id, "answer body", answer.body),
        }

    def _seal(self, request_id: str, part: str, text: str) -> bytes:
        return self._vault.seal(f"request/{request_id}/{part}", text)

    def _open(self, request_id: str, part: str, sealed: bytes) -> str:
        return self._vault.open(f"request/{request_id}/{part}", sealed)

    def _seal_bytes(self, request_id: str, part: str, value: bytes) -> bytes:
        return self._vault.seal_bytes(f"request/{request_id}/{part}", value)

    def _open_bytes(self, request_id: str, part: str, sealed: bytes) -> bytes:
        return self._vault.open_bytes(f"request/{request_id}/{part}", sealed)


def to_row(request: QueuedRequest, columns: Iterable[str] = QueuedRequest.__slots__) -> dict[str, object]:
    row = {name: getattr(request, name) for name in columns}
    row |= {name: row[name].value for name in ("priority", "state", "webhook") if name in row}
    if "retries" in row:
        row["retries"] = dict(request.retries)
    return row


def from_row(row: RowMapping) -> QueuedRequest:
    values = dict(row)
    return replace(
        QueuedRequest(**values),
        priority=Priority(values["priority"]),
        state=State(values["state"]),
        webhook=WebhookState(values["webhook"]),
    )


async def _change(
    connection: AsyncConnection, request: QueuedRequest, state: State | None, attempt: int, columns: tuple[str, ...]
) -> bool:
    """Write columns of a request in this state (None: not completed). It must be at this attempt."""
    row = {**to_row(request, columns), "changed_id": request.request_id, "before": attempt}
    return await _change_from(state, columns).change(connection, row) > 0


@cache
def _change_from(state: State | None, columns: tuple[str, ...]) -> Prepared:
    """Return the statement that writes columns of a request in this state. It must be at the attempt `before`."""
    rows = REQUESTS.c
    return Prepared(
        update(REQUESTS).where(
            rows.request_id == bindparam("changed_id"), _is_in(state), rows.attempt == bindparam("before")
        ),
        row=("changed_id", rows.request_id),
    )


async def _change_all(connection: AsyncConnection, requests: Sequence[QueuedRequest], state: State | None) -> set[str]:
    """Write those requests that are in this state, and return their ids. None: not completed, and at this attempt."""
    rows = REQUESTS.c
    wanted = {request.request_id: request for request in requests}
    # Rows are locked in one order: transactions that lock them in different orders could deadlock.
    query = select(rows.request_id, rows.attempt).where(rows.request_id.in_(wanted), _is_in(state))
    query = query.order_by(rows.request_id).with_for_update()
    found = (await connection.execute(query)).all()
    changed = [one for one, attempt in found if state is not None or wanted[one].attempt == attempt]
    if changed:
        statement = update(REQUESTS).where(rows.request_id == bindparam("changed_id"))
        values = [{**to_row(wanted[one]), "changed_id": one} for one in changed]
        for row in values:
            del row["request_id"]
        await connection.execute(statement, values)
    return set(changed)


def _is_in(state: State | None) -> ColumnElement[bool]:
    return REQUESTS.c.state != State.COMPLETED.value if state is None else REQUESTS.c.state == state.value


def _head(headers: Sequence[tuple[str, str]], *, url: str | None = None) -> str:
    return json.dumps([list(headers), url])


def _parsed(text: str) -> tuple[tuple[tuple[str, str], ...], str | None]:
    headers, url = cast("tuple[list[list[str]], str | None]", json.loads(text))
    return tuple((name, value) for name, value in headers), url
