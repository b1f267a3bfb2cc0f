"""Implements the port Store. Each method is one transaction over the functions of the nouns' modules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.app_events import AppChange, RecordedEvent
from fal_server.core.apps import App
from fal_server.core.history import StateChange
from fal_server.core.identity import AccountId, Accounts, AppId
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner
from fal_server.core.sketch import DurationSketch
from fal_server.ports import Vault
from fal_server.store.crypto.signing import EdSigner, load_signer
from fal_server.store.sql import app_events, apps, environments, epochs, keys, revisions, runners, secrets
from fal_server.store.sql.accounts import SqlAccountStore
from fal_server.store.sql.audit import SqlAuditStore
from fal_server.store.sql.database import Database
from fal_server.store.sql.drains import SqlDrainStore
from fal_server.store.sql.logs import SqlLogStore
from fal_server.store.sql.nodes import SqlNodeStore
from fal_server.store.sql.notices import SqlNoticeStore
from fal_server.store.sql.queue import SqlQueueStore
from fal_server.store.sql.requests import SqlRequestStore
from fal_server.store.sql.sealed import SealedSettings
from fal_server.store.sql.workflows import SqlWorkflowStore


class SqlStore:
    """Implements the port Store in SQLite or PostgreSQL; `open_store` creates one.

    A cancelled call takes effect completely or not at all.

    Args:
        database: closed with the store.
        vault: seals secret columns of revisions and runners.

    Attributes:
        accounts: the accounts and their members in the same database.
        audit: the audit log in the same database.
        drains: the log drains in the same database.
        notices: the notices in it.
        logs: the log lines in the same database.
        nodes: the machines that joined, in the same database.
        queue: the queue's requests in the same database.
        requests: the request history in the same database.
        sealed: the secrets of the controller itself, in the same database.
        workflows: workflows and their runs in the same database.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self.accounts = SqlAccountStore(database)
        self.audit = SqlAuditStore(database)
        self.drains = SqlDrainStore(database)
        self.notices = SqlNoticeStore(database)
        self.logs = SqlLogStore(database)
        self.nodes = SqlNodeStore(database, vault)
        self.queue = SqlQueueStore(database, vault)
        self.requests = SqlRequestStore(database, vault)
        self.sealed = SealedSettings(database, vault)
        self.workflows = SqlWorkflowStore(database, vault)

    async def next_epoch(self) -> int:
        return await self._database.write(epochs.take_next)

    async def register(self, revision: Revision, app: App, events: Sequence[RecordedEvent] = (), /) -> None:
        async def all_of_it(connection: AsyncConnection) -> None:
            await revisions.add(connection, revision, self._vault)
            await apps.save(connection, app)
            await app_events.add(connection, events)

        await self._database.write(all_of_it)

    async def get_revision(self, account: Accounts, revision_id: str) -> Revision | None:
        return await self._database.read(
            lambda connection: revisions.get(connection, account, revision_id, self._vault)
        )

    async def list_revisions(self, account: Accounts, app_name: str | None, environment: str | None) -> list[Revision]:
        return await self._database.read(
            lambda connection: revisions.list_all(connection, account, app_name, environment, self._vault)
        )

    async def page_revisions(self, account: Accounts, after: str, limit: int) -> list[Revision]:
        return await self._database.read(
            lambda connection: revisions.page(connection, account, after, limit, self._vault)
        )

    async def delete_revision(self, account: Accounts, revision_id: str) -> bool:
        return await self._database.write(lambda connection: revisions.remove(connection, account, revision_id))

    async def save_app(self, app: App, events: Sequence[RecordedEvent] = (), /) -> None:
        async def both(connection: AsyncConnection) -> None:
            await apps.save(connection, app)
            await app_events.add(connection, events)

        await self._database.write(both)

    async def get_app(self, account: AccountId, name: str) -> App | None:
        return await self._database.read(lambda connection: apps.get(connection, account, name))

    async def list_apps(self, account: Accounts, environment: str | None) -> list[App]:
        return await self._database.read(lambda connection: apps.list_all(connection, account, environment))

    async def delete_app(self, account: AccountId, name: str) -> App | None:
        return await self._database.write(lambda connection: apps.remove(connection, account, name))

    async def record_event(self, event: RecordedEvent) -> None:
        await self._database.write(lambda connection: app_events.add(connection, (event,)))

    async def recorded_events(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, int] | None, limit: int
    ) -> list[RecordedEvent]:
        return await self._database.read(
            lambda connection: app_events.of_app(connection, app_id, since, until, before, limit)
        )

    async def forget_events(self, recorded_before: datetime) -> int:
        return await self._database.write(lambda connection: app_events.forget(connection, recorded_before))

    async def save_runners(self, runners_: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        await self._database.write(lambda connection: runners.save(connection, runners_, changes, self._vault))

    async def runner_history(self, account: Accounts, runner_id: str) -> list[StateChange]:
        return await self._database.read(lambda connection: runners.history(connection, account, runner_id))

    async def app_changes(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, str, int] | None, limit: int
    ) -> list[AppChange]:
        return await self._database.read(
            lambda connection: runners.changes_of_app(connection, app_id, since, until, before, limit, self._vault)
        )

    async def get_runner(self, account: Accounts, runner_id: str) -> Runner | None:
        return await self._database.read(lambda connection: runners.get(connection, account, runner_id, self._vault))

    async def list_runners(self, account: Accounts, ended_since: datetime | None) -> list[Runner]:
        return await self._database.read(
            lambda connection: runners.list_all(connection, account, ended_since, self._vault)
        )

    async def page_ended_runners(
        self, account: AccountId, ended_since: datetime, app_id: AppId | None, after: tuple[datetime, str], limit: int
    ) -> list[Runner]:
        return await self._database.read(
            lambda connection: runners.page_ended(connection, account, ended_since, app_id, after, limit, self._vault)
        )

    async def forget_runners(self, ended_before: datetime) -> int:
        return await self._database.write(lambda connection: runners.forget(connection, ended_before))

    async def add_key(self, key: Key) -> None:
        await self._database.write(lambda connection: keys.add(connection, key))

    async def get_key(self, account: Accounts, key_id: str) -> Key | None:
        return await self._database.read(lambda connection: keys.get(connection, account, key_id))

    async def list_keys(self, account: Accounts) -> list[Key]:
        return await self._database.read(lambda connection: keys.list_valid(connection, account))

    async def revoke_key(self, account: AccountId, key_id: str, at: datetime) -> bool:
        return await self._database.write(lambda connection: keys.revoke(connection, account, key_id, at))

    async def expire_key(self, account: AccountId, key_id: str, at: datetime) -> bool:
        return await self._database.write(lambda connection: keys.expire(connection, account, key_id, at))

    async def note_key_use(self, account: AccountId, key_id: str, at: datetime) -> bool:
        return await self._database.write(lambda connection: keys.note_use(connection, account, key_id, at))

    async def save_secret(self, secret: SealedSecret) -> None:
        await self._database.write(lambda connection: secrets.save(connection, secret))

    async def list_secrets(self, account: AccountId, environment: str | None) -> list[SealedSecret]:
        return await self._database.read(lambda connection: secrets.list_all(connection, account, environment))

    async def delete_secret(self, account: AccountId, environment: str, name: str) -> bool:
        return await self._database.write(lambda connection: secrets.remove(connection, account, environment, name))

    async def add_environment(self, environment: Environment) -> bool:
        return await self._database.write(lambda connection: environments.add(connection, environment))

    async def get_environment(self, account: AccountId, name: str) -> Environment | None:
        return await self._database.read(lambda connection: environments.get(connection, account, name))

    async def list_environments(self, account: AccountId) -> list[Environment]:
        return await self._database.read(lambda connection: environments.list_all(connection, account))

    async def delete_environment(self, account: AccountId, name: str) -> bool:
        return await self._database.write(lambda connection: environments.remove(connection, account, name))

    async def webhook_signer(self) -> EdSigner:
        """Return the signer of webhooks. Its key is created at the first call."""
        return await load_signer(self._database, self._vault)

    @property
    def write_durations(self) -> DurationSketch:
        """Return how long groups of writes took."""
        return self._database.write_durations

    async def close(self) -> None:
        """Let transactions in progress finish, then close the database."""
        await self._database.close()
