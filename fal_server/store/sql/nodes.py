"""Nodes in the database: joined machines, and the authority for their certificates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.nodes import JoinedNode
from fal_server.ports import Vault
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.sealed import sealed_once
from fal_server.store.sql.tables import NODES, SETTINGS

_AUTHORITY = "node-authority"


class SqlNodeStore:
    """Implements the port NodeStore.

    Args:
        vault: seals the authority.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def authority(self, make: Callable[[], str]) -> str:
        return await sealed_once(self._database, self._vault, _AUTHORITY, make)

    async def all(self) -> list[JoinedNode]:
        async def work(connection: AsyncConnection) -> list[JoinedNode]:
            rows = await connection.execute(select(NODES).order_by(NODES.c.name))
            return [JoinedNode(**row) for row in rows.mappings()]

        return await self._database.read(work)

    async def save(self, node: JoinedNode) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(upsert(connection, NODES), asdict(node))

        await self._database.write(work)

    async def remove(self, name: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(NODES).where(NODES.c.name == name))

        await self._database.write(work)

    async def forget_all(self) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(NODES))
            await connection.execute(delete(SETTINGS).where(SETTINGS.c.name == _AUTHORITY))

        await self._database.write(work)
