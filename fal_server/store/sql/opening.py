"""Opens a store. It creates or migrates the database, and checks the master key against it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import Unavailable
from fal_server.ports import Vault
from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.database import Database
from fal_server.store.sql.sealed import SealedSettings
from fal_server.store.sql.store import SqlStore
from fal_server.store.sql.tables import SETTINGS

_PROOF = "master-key-proof"
# Parts of SQLite's messages.
_BROKEN = ("malformed", "not a database")
_ALAS = "put a backup of it back, or move it away and start once with --new-database"


async def open_store(target: str | Path | None, vault: Vault, *, epoch: int | None = None) -> SqlStore:
    """Open a database. A missing one is created, and an older one is migrated.

    Args:
        target: the path of a SQLite file (mode 0600), a URL (`scheme://...`), or None for a private one in memory.
        vault: encrypts its secret columns.
        epoch: of the controller that holds the lease of a PostgreSQL database; later ones fence its writes.

    Raises:
        Unavailable: it cannot be opened or is not a database, a newer version wrote it, or the vault's master key is
            not its own.
    """
    name = "the database in memory" if target is None else f"the database {shown_target(target)}"
    database = Database(dialect.create_engine(target), epoch=epoch)

    async def prepare(connection: AsyncConnection) -> None:
        await connection.run_sync(migrations.bring_up_to_date, name)
        await _prove_master_key(connection, vault, name)

    try:
        await database.write(prepare)
    except Unavailable as fault:
        await database.close()
        if any(sign in fault.message for sign in _BROKEN):
            raise Unavailable(
                f"{name} is damaged: {_ALAS} (`sqlite3 FILE .recover` may save some of it). {fault.message}"
            ) from fault
        raise
    except BaseException:
        await database.close()
        raise
    return SqlStore(database, vault)


@asynccontextmanager
async def sealed_settings(target: str, vault: Vault) -> AsyncGenerator[SealedSettings]:
    """Read the secrets of a database that another controller may use. One without a proof fits any master key.

    Raises:
        Unavailable: the vault's master key is not its own, or it cannot be read.
    """
    database = Database(dialect.create_engine(target))
    try:
        await database.read(lambda connection: _check_proof(connection, vault, f"the database {shown_target(target)}"))
        yield SealedSettings(database, vault)
    finally:
        await database.close()


async def _check_proof(connection: AsyncConnection, vault: Vault, name: str) -> bool:
    """Return whether there is a proof of the master key. This one then fits it.

    Raises:
        Unavailable: it is another one's.
    """
    query = select(SETTINGS.c.value).where(SETTINGS.c.name == _PROOF)
    proof = (await connection.execute(query)).scalar_one_or_none()
    if proof is None:
        return False
    try:
        vault.open(_PROOF, proof)
    except Unavailable as fault:
        raise Unavailable(
            f"{name} was made with another master key: start with the key that it was made with "
            "(FAL_MASTER_KEY, FAL_MASTER_KEY_FILE or master.key in the state directory)"
        ) from fault
    return True


async def _prove_master_key(connection: AsyncConnection, vault: Vault, name: str) -> None:
    if not await _check_proof(connection, vault, name):
        await connection.execute(insert(SETTINGS), {"name": _PROOF, "value": vault.seal(_PROOF, _PROOF)})


def shown_target(target: str | Path) -> str:
    """Return a path, or a URL without the password it may contain."""
    text = str(target)
    scheme, separator, rest = text.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else text
