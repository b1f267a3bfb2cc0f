"""What must survive a crash: rows of every noun, and log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.apps import App
from fal_server.core.history import StateChange
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner


class Store(Protocol):
    """What must survive a crash. Each call is one transaction; when it returns, its effect is durable."""

    async def register(self, revision: Revision, app: App) -> None:
        """Add a revision and write (insert or replace) its app, both or neither."""
        ...

    async def add_revision(self, revision: Revision) -> None:
        """Add a revision without an app (ephemeral runs)."""
        ...

    async def get_revision(self, revision_id: str) -> Revision | None:
        """One revision, or None."""
        ...

    async def list_revisions(self, app_name: str | None, environment: str | None) -> list[Revision]:
        """Revisions, newest first; None does not restrict."""
        ...

    async def page_revisions(self, after: str, limit: int) -> list[Revision]:
        """Revisions in the order of their ids, those after this id; empty where there are no more."""
        ...

    async def delete_revision(self, revision_id: str) -> bool:
        """Delete; False where it was not there."""
        ...

    async def save_app(self, app: App) -> None:
        """Insert or replace an app."""
        ...

    async def get_app(self, name: str) -> App | None:
        """One app by its full name, or None."""
        ...

    async def list_apps(self, environment: str | None) -> list[App]:
        """Apps by name; None is all environments."""
        ...

    async def delete_app(self, name: str) -> App | None:
        """Delete; what was deleted, or None where it was not there."""
        ...

    async def save_runners(self, runners: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        """Insert or replace these runners and keep what they went through, all or nothing."""
        ...

    async def runner_history(self, runner_id: str) -> list[StateChange]:
        """What a runner went through, in order; empty where it is not known."""
        ...

    async def get_runner(self, runner_id: str) -> Runner | None:
        """One runner, also an ended one within retention, or None."""
        ...

    async def list_runners(self, ended_since: datetime | None) -> list[Runner]:
        """All runners that have not ended and, where given, those that ended since `ended_since`; oldest first."""
        ...

    async def forget_runners(self, ended_before: datetime) -> int:
        """Delete runners that ended before this; how many."""
        ...

    async def add_key(self, key: Key) -> None:
        """Add a key."""
        ...

    async def get_key(self, key_id: str) -> Key | None:
        """One key, also a revoked one, or None."""
        ...

    async def list_keys(self) -> list[Key]:
        """The keys that are not revoked, oldest first."""
        ...

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        """Mark a key as revoked; False where there is no such key that is not revoked."""
        ...

    async def save_secret(self, secret: SealedSecret) -> None:
        """Insert or replace a secret."""
        ...

    async def list_secrets(self, environment: str | None) -> list[SealedSecret]:
        """Secrets by environment and name; None is all environments."""
        ...

    async def delete_secret(self, environment: str, name: str) -> bool:
        """Delete; False where it was not there."""
        ...

    async def add_environment(self, environment: Environment) -> bool:
        """Add; False where the name is taken."""
        ...

    async def get_environment(self, name: str) -> Environment | None:
        """One environment, or None."""
        ...

    async def list_environments(self) -> list[Environment]:
        """All environments, the default one first, then by name."""
        ...

    async def delete_environment(self, name: str) -> bool:
        """Delete the environment with its secrets, in one transaction; False where it was not there."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class LogStore(Protocol):
    """Log lines, each exactly once."""

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Keep these lines; one whose (runner_id, sequence) is known is dropped. Durable when it returns."""
        ...

    async def last_sequence(self, runner_id: str) -> int:
        """The highest sequence number kept for a runner; 0 for none."""
        ...

    async def first_unsent(self, app_name: str, sent: Mapping[str, int], since: datetime | None) -> datetime | None:
        """The time of an app's oldest line that is not known, or None: of a runner that `sent` names one above the
        sequence there, of any other one at or after `since`.
        """
        ...

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines, in the query's order."""
        ...

    async def forget(self, before: datetime) -> int:
        """Delete the lines older than this; how many."""
        ...
