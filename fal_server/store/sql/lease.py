"""The lease of a PostgreSQL database. It says which of several controllers is the owner, and which wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.controller_lock import end_lock_of_others
from fal_server.store.sql.driver_errors import driver_faults

TTL_SECONDS = 5.0
# The migration that made the tables of the lease. Any later version of them must suit earlier controllers, which wait
# beside later ones while they are upgraded one after the other.
_SINCE = "0026"
_NOW = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
_ENDS = f"{_NOW} + {int(TTL_SECONDS * 1_000_000)}"
_STATE = text(
    "SELECT e.epoch, coalesce(e.holder, '') AS holder, coalesce(c.machine, '') AS machine, "  # noqa: S608  # no input
    f"coalesce(c.address, '') AS address, (coalesce(e.expires_at, 0) - {_NOW}) / 1000000.0 AS left_seconds "
    "FROM epochs e LEFT JOIN controllers c ON c.directory = e.holder WHERE e.id = 1"
)
_FIRST = text("INSERT INTO epochs (id, epoch) VALUES (1, 0) ON CONFLICT DO NOTHING")
_CLAIM = text(
    f"UPDATE epochs SET epoch = epoch + 1, holder = :me, expires_at = {_ENDS} WHERE id = 1 AND epoch = :seen AND "  # noqa: S608
    f"(holder IS NULL OR holder = :me OR expires_at < {_NOW}) RETURNING epoch"
)
_RENEW = text(f"UPDATE epochs SET expires_at = {_ENDS} WHERE id = 1 AND epoch = :epoch AND holder = :me")  # noqa: S608
_RELEASE = text("UPDATE epochs SET holder = NULL, expires_at = NULL WHERE id = 1 AND epoch = :epoch AND holder = :me")
_NOTE = text(
    "INSERT INTO controllers (directory, machine, address, version, seen_at) "  # noqa: S608
    f"VALUES (:directory, :machine, :address, :version, {_NOW}) ON CONFLICT (directory) DO UPDATE SET "
    "machine = excluded.machine, address = excluded.address, version = excluded.version, seen_at = excluded.seen_at"
)
_LEAVE = text("DELETE FROM controllers WHERE directory = :me")
_FORGET = text(f"DELETE FROM controllers WHERE seen_at < {_NOW} - 86400000000")  # noqa: S608
_WAITING = text(
    "SELECT c.machine, c.address FROM controllers c WHERE c.directory <> :me "  # noqa: S608
    f"AND c.seen_at > {_NOW} - {int(TTL_SECONDS * 1_000_000)} ORDER BY c.machine, c.address"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A controller that owns a database, or waits to own it.

    Attributes:
        directory: the id of its state directory, which one process at a time holds.
        machine, address: where it runs and answers, for people and for the others.
    """

    directory: str
    machine: str
    address: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """The lease when it was read.

    Attributes:
        epoch: of the last owner.
        holder: the id of the owner's directory; empty if it gave the lease back.
        machine, address: of the owner; empty if that is not known.
        left_seconds: how long the lease goes on, by the database's clock; negative if it is over.
        newer: whether a later version of this program has migrated the database, so that this one cannot use it.
    """

    epoch: int
    holder: str
    machine: str
    address: str
    left_seconds: float
    newer: bool = False

    def open_to(self, directory: str) -> bool:
        """Return whether a controller may claim it now. The directory's former process has ended."""
        return self.holder in ("", directory) or self.left_seconds < 0


class OwnerLease:
    """The lease, as one controller sees it. It has connections of its own, so no write of ours delays a renewal.

    Every method raises Unavailable if the database cannot be used.

    Args:
        url: of a PostgreSQL database.
        me: this controller.
    """

    def __init__(self, url: str, me: Contender) -> None:
        self._engine = dialect.create_engine(url)
        self._me = me

    async def state(self) -> LeaseState | None:
        """Return the lease; None if the database is without one yet."""
        with driver_faults():
            async with self._engine.connect() as connection:
                version = await connection.run_sync(migrations.version_of)
                if version is None or version < _SINCE:
                    return None
                row = (await connection.execute(_STATE)).mappings().one_or_none()
        newer = version > migrations.HEAD
        if row is None:
            return LeaseState(epoch=0, holder="", machine="", address="", left_seconds=-1.0, newer=newer)
        return LeaseState(
            epoch=row["epoch"],
            holder=row["holder"],
            machine=row["machine"],
            address=row["address"],
            left_seconds=float(row["left_seconds"]),
            newer=newer,
        )

    async def claim(self, seen: LeaseState) -> int | None:
        """Take the lease, and cut the former owner's connection. A dead or frozen owner could still write with it.

        Returns:
            The new epoch; None if another controller was faster.
        """
        with driver_faults():
            async with self._engine.begin() as connection:
                await connection.execute(_FIRST)
                epoch = (
                    await connection.execute(_CLAIM, {"me": self._me.directory, "seen": seen.epoch})
                ).scalar_one_or_none()
                if epoch is not None:
                    await self._note(connection)
            if epoch is not None and seen.holder not in ("", self._me.directory):
                async with self._engine.begin() as connection:
                    await end_lock_of_others(connection)
        return epoch

    async def renew(self, epoch: int) -> bool:
        """Prolong the lease; return False if another controller has it."""
        with driver_faults():
            async with self._engine.begin() as connection:
                renewed = await connection.execute(_RENEW, {"epoch": epoch, "me": self._me.directory})
                await self._note(connection)
                return renewed.rowcount > 0

    async def release(self, epoch: int) -> None:
        """Give the lease back. Whoever waits need not wait for its end."""
        with driver_faults():
            async with self._engine.begin() as connection:
                await connection.execute(_RELEASE, {"epoch": epoch, "me": self._me.directory})
                await connection.execute(_LEAVE, {"me": self._me.directory})

    async def note(self) -> None:
        """Tell that this controller waits."""
        with driver_faults():
            async with self._engine.begin() as connection:
                await self._note(connection)

    async def leave(self) -> None:
        """Tell that it waits no more."""
        with driver_faults():
            async with self._engine.begin() as connection:
                await connection.execute(_LEAVE, {"me": self._me.directory})

    async def others(self) -> Sequence[str]:
        """Return machine and address of other recent controllers, for people."""
        with driver_faults():
            async with self._engine.connect() as connection:
                rows = await connection.execute(_WAITING, {"me": self._me.directory})
                return [f"{machine} at {address}" for machine, address in rows]

    async def close(self) -> None:
        """Close its connections."""
        await self._engine.dispose()

    async def _note(self, connection: AsyncConnection) -> None:
        me = self._me
        await connection.execute(_FORGET)
        await connection.execute(
            _NOTE,
            {"directory": me.directory, "machine": me.machine, "address": me.address, "version": me.version},
        )
