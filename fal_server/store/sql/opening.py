"""Opens a store: creates or migrates the database, and checks the master key against it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import Unavailable
from fal_server.ports import Vault
from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.database import Database
from fal_server.store.sql.store import SqlStore
from fal_server.store.sql.tables import SETTINGS

_PROOF = "master-key-proof"
# Parts of SQLite's messages.
_BROKEN = ("malformed", "not a database")
_ALAS = "put a backup of it back, or move it away and start once with --new-database"


async def open_store(target: str | Path | None, vault: Vault) -> SqlStore:
    """Open a database; a missing one is created and an older one migrated.

    Args:
        target: the path of a SQLite file (mode 0600), a URL (`scheme://...`), or None for a private one in memory.
        vault: encrypts its secret columns.

    Raises:
        Unavailable: it cannot be opened or is not a database, a newer version wrote it, or the vault's master key is
            not its own.
    """
    name = "the database in memory" if target is None else f"the database {shown_target(target)}"
    database = Database(dialect.create_engine(target))

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


async def _prove_master_key(connection: AsyncConnection, vault: Vault, name: str) -> None:
    query = select(SETTINGS.c.value).where(SETTINGS.c.name == _PROOF)
    proof = (await connection.execute(query)).scalar_one_or_none()
    if proof is None:
        await connection.execute(insert(SETTINGS), {"name": _PROOF, "value": vault.seal(_PROOF, _PROOF)})
        return
    try:
        vault.open(_PROOF, proof)
    except Unavailable as fault:
        raise Unavailable(
            f"{name} was made with another master key: start with the key that it was made with "
            "(FAL_MASTER_KEY, FAL_MASTER_KEY_FILE or master.key in the state directory)"
        ) from fault


def shown_target(target: str | Path) -> str:
    """Return a path or a URL without the password that it may contain."""
    text = str(target)
    scheme, separator, rest = text.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else text
