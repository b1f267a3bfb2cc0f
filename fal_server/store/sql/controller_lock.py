"""Holds a lock so that only one controller uses a PostgreSQL database: two would undo each other's work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fal_server.core.faults import FailedPrecondition

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncConnection

# No other program is likely to lock this number. Each database has its own advisory locks.
_NUMBER = int.from_bytes(b"fal-grpc")


class ControllerLock:
    """An advisory lock, held by a connection that stays open.

    Args:
        engine: of a PostgreSQL database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection[asyncpg.Record] | None = None

    async def hold(self) -> None:
        """Take the lock, or check that it is still held: the server releases it with a broken connection.

        Raises:
            FailedPrecondition: another controller holds it.
        """
        if self._driver is None or self._driver.is_closed():
            async with self._turn:
                if self._driver is None or self._driver.is_closed():
                    await self._take()

    async def release(self) -> None:
        """Release the lock."""
        if self._connection is not None:
            # Do not return it to the pool, because a surviving session would keep the lock.
            await self._connection.invalidate()
            await self._connection.close()
            self._connection = self._driver = None

    async def _take(self) -> None:
        await self.release()
        connection = await self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
        self._connection = connection
        if not (await connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": _NUMBER})).scalar_one():
            await self.release()
            raise FailedPrecondition(
                "another controller uses this database: stop it, or give this one a database of its own"
            )
        self._driver = (await connection.get_raw_connection()).driver_connection
