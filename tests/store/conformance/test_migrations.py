"""The migrations make, in every database, what the tables say."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import BigInteger, String

from fal_server.store import AesVault, open_store
from fal_server.store.sql import dialect
from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.tables import METADATA


def other_type(_context, _inspected, _column, inspected_type, wanted):
    """Whether a column is not of the type that ours is made of; None leaves SQLAlchemy's own types to Alembic."""
    if isinstance(wanted, UtcTimestamp):
        return not isinstance(inspected_type, BigInteger)
    return not isinstance(inspected_type, String) if isinstance(wanted, Text) else None


def differences(connection):
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": other_type}), METADATA)


async def test_migrations_make_what_the_tables_say(durable):
    await (await open_store(durable, AesVault(bytes(range(32))))).close()
    engine = dialect.create_engine(durable)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
