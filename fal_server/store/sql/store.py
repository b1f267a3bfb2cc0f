"""The Store port in a database: each method is one transaction over the functions of the nouns' modules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.apps import App
from fal_server.core.history import StateChange
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner
from fal_server.ports import Vault
from fal_server.store.crypto.signing import EdSigner, load_signer
from fal_server.store.sql import apps, environments, keys, revisions, runners, secrets
from fal_server.store.sql.database import Database
from fal_server.store.sql.logs import SqlLogStore
from fal_server.store.sql.queue import SqlQueueStore


class SqlStore:
    """What must survive a crash, in SQLite or PostgreSQL; `open_store` makes one.

    The faults of each method are those of the noun's function. A cancelled call takes effect whole or not at all.

    Args:
        database: where it is kept; closed with the store.
        vault: seals what is secret in revisions and runners.

    Attributes:
        logs: the log lines in the same database.
        queue: the queue's requests in the same database.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self.logs = SqlLogStore(database)
        self.queue = SqlQueueStore(database, vault)

    async def register(self, revision: Revision, app: App) -> None:
        """Add a revision and write (insert or replace) its app, both or neither."""

        async def both(connection: AsyncConnection) -> None:
            await revisions.add(connection, revision, self._vault)
            await apps.save(connection, app)

        await self._database.write(both)

    async def add_revision(self, revision: Revision) -> None:
        """Add a revision without an app (ephemeral runs)."""
        await self._database.write(lambda connection: revisions.add(connection, revision, self._vault))

    async def get_revision(self, revision_id: str) -> Revision | None:
        """One revision, or None."""
        return await self._database.read(lambda connection: revisions.get(connection, revision_id, self._vault))

    async def list_revisions(self, app_name: str | None, environment: str | None) -> list[Revision]:
        """Revisions, newest first; None does not restrict."""
        return await self._database.read(
            lambda connection: revisions.list_all(connection, app_name, environment, self._vault)
        )

    async def page_revisions(self, after: str, limit: int) -> list[Revision]:
        """Revisions in the order of their ids, those after this id; empty where there are no more."""
        return await self._database.read(lambda connection: revisions.page(connection, after, limit, self._vault))

    async def delete_revision(self, revision_id: str) -> bool:
        """Delete; False where it was not there."""
        return await self._database.write(lambda connection: revisions.remove(connection, revision_id))

    async def save_app(self, app: App) -> None:
        """Insert or replace an app."""
        await self._database.write(lambda connection: apps.save(connection, app))

    async def get_app(self, name: str) -> App | None:
        """One app by its full name, or None."""
        return await self._database.read(lambda connection: apps.get(connection, name))

    async def list_apps(self, environment: str | None) -> list[App]:
        """Apps by name; None is all environments."""
        return await self._database.read(lambda connection: apps.list_all(connection, environment))

    async def delete_app(self, name: str) -> App | None:
        """Delete; what was deleted, or None where it was not there."""
        return await self._database.write(lambda connection: apps.remove(connection, name))

    async def save_runners(self, runners_: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        """Insert or replace these runners and keep what they went through, all or nothing."""
        await self._database.write(lambda connection: runners.save(connection, runners_, changes, self._vault))

    async def runner_history(self, runner_id: str) -> list[StateChange]:
        """What a runner went through, in order."""
        return await self._database.read(lambda connection: runners.history(connection, runner_id))

    async def get_runner(self, runner_id: str) -> Runner | None:
        """One runner, also an ended one within retention, or None."""
        return await self._database.read(lambda connection: runners.get(connection, runner_id, self._vault))

    async def list_runners(self, ended_since: datetime | None) -> list[Runner]:
        """The runners that have not ended and, where given, those that ended at or after a moment; oldest first."""
        return await self._database.read(lambda connection: runners.list_all(connection, ended_since, self._vault))

    async def forget_runners(self, ended_before: datetime) -> int:
        """Delete runners that ended before this; how many."""
        return await self._database.write(lambda connection: runners.forget(connection, ended_before))

    async def add_key(self, key: Key) -> None:
        """Add a key."""
        await self._database.write(lambda connection: keys.add(connection, key))

    async def get_key(self, key_id: str) -> Key | None:
        """One key, also a revoked one, or None."""
        return await self._database.read(lambda connection: keys.get(connection, key_id))

    async def list_keys(self) -> list[Key]:
        """The keys that are not revoked, oldest first."""
        return await self._database.read(keys.list_valid)

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        """Mark a key as revoked; False where there is no such key that is not revoked."""
        return await self._database.write(lambda connection: keys.revoke(connection, key_id, at))

    async def save_secret(self, secret: SealedSecret) -> None:
        """Insert or replace a secret."""
        await self._database.write(lambda connection: secrets.save(connection, secret))

    async def list_secrets(self, environment: str | None) -> list[SealedSecret]:
        """Secrets by environment and name; None is all environments."""
        return await self._database.read(lambda connection: secrets.list_all(connection, environment))

    async def delete_secret(self, environment: str, name: str) -> bool:
        """Delete; False where it was not there."""
        return await self._database.write(lambda connection: secrets.remove(connection, environment, name))

    async def add_environment(self, environment: Environment) -> bool:
        """Add; False where the name is taken."""
        return await self._database.write(lambda connection: environments.add(connection, environment))

    async def get_environment(self, name: str) -> Environment | None:
        """One environment, or None."""
        return await self._database.read(lambda connection: environments.get(connection, name))

    async def list_environments(self) -> list[Environment]:
        """All environments, the default one first, then by name."""
        return await self._database.read(environments.list_all)

    async def delete_environment(self, name: str) -> bool:
        """Delete the environment with its secrets, in one transaction; False where it was not there."""
        return await self._database.write(lambda connection: environments.remove(connection, name))

    async def webhook_signer(self) -> EdSigner:
        """The signer of webhooks; its key is made at the first call."""
        return await load_signer(self._database, self._vault)

    async def close(self) -> None:
        """Let what is under way finish, then let go of the database."""
        await self._database.close()
