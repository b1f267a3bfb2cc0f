"""Secrets of the controller itself. Each is made once for a database, and sealed in it."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.ports import Vault
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import SETTINGS


class SealedSettings:
    """The secrets of a database by name. Its controllers, one after another, share them."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def get(self, name: str) -> str | None:
        """Return a secret, or None.

        Raises:
            Unavailable: the database cannot be read, or the vault cannot decrypt the secret.
        """
        query = select(SETTINGS.c.value).where(SETTINGS.c.name == name)

        async def work(connection: AsyncConnection) -> bytes | None:
            return (await connection.execute(query)).scalar_one_or_none()

        sealed = await self._database.read(work)
        return None if sealed is None else self._vault.open(name, sealed)

    async def put(self, name: str, value: str) -> None:
        """Insert or replace a secret.

        Raises:
            Unavailable: the database cannot be written.
        """

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                upsert(connection, SETTINGS), {"name": name, "value": self._vault.seal(name, value)}
            )

        await self._database.write(work)


async def sealed_once(database: Database, vault: Vault, name: str, make: Callable[[], str]) -> str:
    """Return the secret of this name; the first call makes it.

    Raises:
        Unavailable: the database cannot be written, or the vault cannot decrypt the secret.
    """

    async def work(connection: AsyncConnection) -> bytes:
        query = select(SETTINGS.c.value).where(SETTINGS.c.name == name)
        sealed = (await connection.execute(query)).scalar_one_or_none()
        if sealed is None:
            sealed = vault.seal(name, make())
            await connection.execute(insert(SETTINGS), {"name": name, "value": sealed})
        return sealed

    return vault.open(name, await database.write(work))
