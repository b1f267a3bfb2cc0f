"""Lets only one controller write to a PostgreSQL database. Two would undo each other's work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from fal_server.core.faults import FailedPrecondition
from fal_server.store.sql.tables import EPOCHS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# No other program is likely to lock this number. Each database has its own advisory locks.
_NUMBER = int.from_bytes(b"fal-grpc")
_TAKE = text("SELECT pg_try_advisory_lock(:n)")
_END_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database "
    "WHERE locktype = 'advisory' AND granted AND datname = current_database() AND objsubid = 1 "
    "AND classid::bigint = :high AND objid::bigint = :low AND pid <> pg_backend_pid()"
)
# A server takes some time to notice that the process at the other end of a connection was killed.
_TRIES = 100
_PAUSE_SECONDS = 0.05


async def take_lock(connection: AsyncConnection, epoch: int | None = None) -> None:
    """Lock the database until the connection ends. What writes through it cannot have lost the lock.

    Args:
        epoch: of the controller, which holds the lease; None for whoever works on the database without one.

    Raises:
        FailedPrecondition: another controller holds the lock, or has had the database since this one.
    """
    for left in reversed(range(1 if epoch is None else _TRIES)):
        await _check_epoch(connection, epoch)
        if (await connection.execute(_TAKE, {"n": _NUMBER})).scalar_one():
            break
        if left:
            await asyncio.sleep(_PAUSE_SECONDS)
    else:
        raise FailedPrecondition(
            "another controller uses this database: stop it, give this one a database of its own, or let it wait for "
            "the other with --standby"
        )
    await _check_epoch(connection, epoch)  # from now on nobody else can write, but until now somebody could


async def _check_epoch(connection: AsyncConnection, epoch: int | None) -> None:
    """Refuse a controller that another one has followed; None is nobody's."""
    if epoch is None:
        return
    latest = (await connection.execute(select(EPOCHS.c.epoch))).scalar_one_or_none()
    if latest != epoch:
        raise FailedPrecondition(
            f"another controller took this database over, with epoch {latest}: this one, of epoch {epoch}, writes "
            "nothing more"
        )


async def end_lock_of_others(connection: AsyncConnection) -> None:
    """Cut the connections that hold the lock. What they have not committed is undone."""
    await connection.execute(_END_OTHERS, {"high": _NUMBER >> 32, "low": _NUMBER & 0xFFFFFFFF})
