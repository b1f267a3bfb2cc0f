"""Counts the controllers that had this database, one after another."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.store.sql.tables import EPOCHS


async def take_next(connection: AsyncConnection) -> int:
    """Count one more start, and return its number."""
    await connection.execute(update(EPOCHS).values(epoch=EPOCHS.c.epoch + 1))
    found = (await connection.execute(select(EPOCHS.c.epoch))).scalar_one_or_none()
    if found is None:
        await connection.execute(insert(EPOCHS).values(id=1, epoch=1))
        return 1
    return int(found)
