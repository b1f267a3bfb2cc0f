"""Runners in the database, with their histories; their tokens are sealed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, Select, and_, bindparam, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.app_events import AppChange
from fal_server.core.faults import Unavailable
from fal_server.core.history import StateChange
from fal_server.core.identity import AccountId, Accounts, AppId
from fal_server.core.runners import Desired, MetricsAccess, Runner, RunnerState, StopCause
from fal_server.ports import Vault
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.prepared import Prepared, prepared
from fal_server.store.sql.tables import RUNNER_EVENTS, RUNNERS, owned_by

log = logging.getLogger(__name__)
_COLUMNS = tuple(RUNNERS.c.keys())
_SLICE = 50  # rows are converted on the event loop, for a few milliseconds
_ENDED = RUNNERS.c.state == RunnerState.TERMINATED.value
# Listed individually, because no index supports inequality.
_LIVING = RUNNERS.c.state.in_([state.value for state in RunnerState if state is not RunnerState.TERMINATED])

# The next number is one more than that of the runner's last change.
_ADD_CHANGE = Prepared(
    insert(RUNNER_EVENTS).values(
        runner_id=bindparam("of_runner"),
        sequence=select(func.coalesce(func.max(RUNNER_EVENTS.c.sequence), 0))
        .where(RUNNER_EVENTS.c.runner_id == bindparam("of_runner"))
        .scalar_subquery()
        + 1,
        at=bindparam("new_at"),
        state=bindparam("new_state"),
        reason=bindparam("new_reason"),
    )
)


def to_row(runner: Runner, vault: Vault) -> dict[str, object]:
    return {
        "account": runner.account,
        "runner_id": runner.runner_id,
        "app_name": runner.app_name,
        "environment": runner.environment,
        "revision_id": runner.revision_id,
        "machine_type": runner.machine_type,
        "sealed_token": vault.seal(_context(runner.runner_id), runner.token),
        "created_at": runner.created_at,
        "state": runner.state.value,
        "desired": runner.desired.value,
        "reason": runner.reason,
        "stop_cause": runner.stop_cause,
        "own_end": runner.own_end,
        "node": runner.node,
        "handle": runner.handle,
        "host": runner.host,
        "port": runner.port,
        "metrics_port": runner.metrics_port,
        "gated": runner.gated,
        "metrics_access": runner.metrics_access.value,
        "ordered_at": runner.ordered_at,
        "started_at": runner.started_at,
        "ready_at": runner.ready_at,
        "first_request_at": runner.first_request_at,
        "first_byte_at": runner.first_byte_at,
        "unrouted_at": runner.unrouted_at,
        "draining_at": runner.draining_at,
        "stopping_at": runner.stopping_at,
        "ended_at": runner.ended_at,
        "not_before": runner.not_before,
        "exit_code": runner.exit_code,
        "grace_seconds": runner.grace_seconds,
        "kill": runner.kill,
        "replaces": runner.replaces,
        "replaced_by": runner.replaced_by,
        "replace_first": runner.replace_first,
        "ephemeral": runner.ephemeral,
        "failed_starts": runner.failed_starts,
        "gpus": list(runner.gpus),
    }


def from_row(row: Sequence[object], vault: Vault, *, ended_too: bool = True) -> Runner:
    """Return a row as a runner. A token that cannot be decrypted is empty.

    Args:
        row: of `select(RUNNERS)`.
        ended_too: also decrypt the token of an ended runner, which is otherwise empty.
    """
    values = dict(zip(_COLUMNS, row, strict=True))
    return _from_values(values, vault, opened=ended_too or values["state"] != RunnerState.TERMINATED.value)


def _from_values(values: dict[Any, Any], vault: Vault, *, opened: bool) -> Runner:
    sealed = values.pop("sealed_token")
    values["state"] = RunnerState(values["state"])
    values["gpus"] = tuple(values["gpus"])
    values["desired"] = Desired(values["desired"])
    values["metrics_access"] = MetricsAccess(values["metrics_access"])
    if values["stop_cause"] is not None:
        values["stop_cause"] = StopCause(values["stop_cause"])
    return Runner(**values, token=_token(values["runner_id"], sealed, vault) if opened else "")


async def save(
    connection: AsyncConnection, runners: Sequence[Runner], changes: Sequence[StateChange], vault: Vault
) -> None:
    """Insert or replace runners and add to their histories. Of two with the same id, the last one counts."""
    rows = {runner.runner_id: to_row(runner, vault) for runner in runners}
    write = prepared(upsert(connection, RUNNERS))
    # in one order, because transactions that lock rows in different orders could deadlock
    for runner_id in sorted(rows):
        await write.change(connection, rows[runner_id])
    for change in changes:
        values = {"new_at": change.at, "new_state": change.state.value, "new_reason": change.reason}
        await _ADD_CHANGE.change(connection, {"of_runner": change.runner_id, **values})


async def history(connection: AsyncConnection, account: Accounts, runner_id: str) -> list[StateChange]:
    """Return a runner's state changes, oldest first."""
    query = select(RUNNER_EVENTS).join(RUNNERS, RUNNERS.c.runner_id == RUNNER_EVENTS.c.runner_id)
    query = query.where(owned_by(RUNNERS, account), RUNNER_EVENTS.c.runner_id == runner_id)
    query = query.order_by(RUNNER_EVENTS.c.sequence)
    return [
        StateChange(runner_id=row["runner_id"], at=row["at"], state=RunnerState(row["state"]), reason=row["reason"])
        for row in (await connection.execute(query)).mappings()
    ]


async def changes_of_app(
    connection: AsyncConnection,
    app_id: AppId,
    since: datetime,
    until: datetime,
    before: tuple[datetime, str, int] | None,
    limit: int,
    vault: Vault,
) -> list[AppChange]:
    """Return state changes of an app's runners, newest first."""
    events = RUNNER_EVENTS.c
    place = (events.at, events.runner_id, events.sequence)
    query = (
        select(
            events.at,
            events.sequence,
            events.state.label("changed_to"),
            events.reason.label("changed_because"),
            RUNNERS,
        )
        .join(RUNNERS, RUNNERS.c.runner_id == events.runner_id)
        .where(owned_by(RUNNERS, app_id.account), RUNNERS.c.app_name == str(app_id))
        .where(events.at >= since, events.at < until)
    )
    if before is not None:
        same, other = events.at == before[0], events.runner_id == before[1]
        earlier = (events.at < before[0], and_(same, events.runner_id < before[1]))
        query = query.where(or_(*earlier, and_(same, other, events.sequence < before[2])))
    found: list[AppChange] = []
    chosen = query.order_by(*(column.desc() for column in place)).limit(limit)
    async for rows in (await connection.stream(chosen)).mappings().partitions(_SLICE):
        found += [_change_from_row(row, vault) for row in rows]
    return found


def _change_from_row(row: RowMapping, vault: Vault) -> AppChange:
    values = {column.name: row[column] for column in RUNNERS.c}
    change = StateChange(
        runner_id=row["runner_id"], at=row["at"], state=RunnerState(row["changed_to"]), reason=row["changed_because"]
    )
    return AppChange(change=change, number=row["sequence"], runner=_from_values(values, vault, opened=False))


async def get(connection: AsyncConnection, account: Accounts, runner_id: str, vault: Vault) -> Runner | None:
    """Return one runner, or None."""
    query = select(RUNNERS).where(owned_by(RUNNERS, account), RUNNERS.c.runner_id == runner_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else from_row(row, vault)


async def list_all(
    connection: AsyncConnection, account: Accounts, ended_since: datetime | None, vault: Vault
) -> list[Runner]:
    """Return living runners, and those ended since a time if given. The oldest come first."""
    wanted = _LIVING if ended_since is None else or_(_LIVING, and_(_ENDED, RUNNERS.c.ended_at >= ended_since))
    query = (
        select(RUNNERS).where(owned_by(RUNNERS, account), wanted).order_by(RUNNERS.c.created_at, RUNNERS.c.runner_id)
    )
    return await _in_slices(connection, query, vault)


async def page_ended(
    connection: AsyncConnection,
    account: AccountId,
    ended_since: datetime,
    app_id: AppId | None,
    after: tuple[datetime, str],
    limit: int,
    vault: Vault,
) -> list[Runner]:
    """Return runners that ended since a time, by end and id. They come after this end and id."""
    ended_at, order = RUNNERS.c.ended_at, (RUNNERS.c.ended_at, RUNNERS.c.runner_id)
    behind = or_(ended_at > after[0], and_(ended_at == after[0], RUNNERS.c.runner_id > after[1]))
    query = select(RUNNERS).where(_ENDED, ended_at >= max(ended_since, after[0]), behind, owned_by(RUNNERS, account))
    if app_id is not None:
        query = query.where(RUNNERS.c.app_name == str(app_id))
    return await _in_slices(connection, query.order_by(*order).limit(limit), vault)


async def forget(connection: AsyncConnection, ended_before: datetime) -> int:
    """Delete the runners that ended before a time; return how many."""
    result = await connection.execute(delete(RUNNERS).where(_ENDED, RUNNERS.c.ended_at < ended_before))
    return result.rowcount


async def _in_slices(connection: AsyncConnection, query: Select[tuple[object, ...]], vault: Vault) -> list[Runner]:
    """Return the rows of a query as runners. Other tasks run between two slices."""
    found: list[Runner] = []
    async for rows in (await connection.stream(query)).partitions(_SLICE):
        found += [from_row(row, vault, ended_too=False) for row in rows]
    return found


def _token(runner_id: str, sealed: bytes, vault: Vault) -> str:
    """Decrypt a token; one damaged row must not hide all others."""
    try:
        return vault.open(_context(runner_id), sealed)
    except Unavailable:
        log.error("the token of runner %s cannot be opened: its row was changed or damaged in the database", runner_id)
        return ""


def _context(runner_id: str) -> str:
    return f"runner/{runner_id}/token"
