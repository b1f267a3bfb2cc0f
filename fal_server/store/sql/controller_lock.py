"""Lets only one controller use a PostgreSQL database: two would undo each other's work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from fal_server.core.faults import FailedPrecondition

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# No other program is likely to lock this number. Each database has its own advisory locks.
_NUMBER = int.from_bytes(b"fal-grpc")


async def take_lock(connection: AsyncConnection) -> None:
    """Lock the database until the connection ends: what writes through it cannot have lost the lock.

    Raises:
        FailedPrecondition: another controller holds it.
    """
    if not (await connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": _NUMBER})).scalar_one():
        raise FailedPrecondition(
            "another controller uses this database: stop it, or give this one a database of its own"
        )
