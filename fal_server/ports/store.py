"""The Protocols of the database: rows of every noun, and log lines.

Every call that lists, finds or deletes names the account that it is for. Rows of other accounts do not exist for it, so
an id of another account is answered like one that nobody has. EVERY_ACCOUNT is for the controller's own work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.app_events import AppChange
from fal_server.core.apps import App
from fal_server.core.history import StateChange
from fal_server.core.identity import AccountId, Accounts, AppId
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner


class Store(Protocol):
    """What must survive a crash. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def register(self, revision: Revision, app: App) -> None:
        """Add a revision and insert or replace its app, both or neither.

        Raises:
            AlreadyExists: a revision has this id.
            FailedPrecondition: the app's environment or another revision that it names does not exist.
        """
        ...

    async def get_revision(self, account: Accounts, revision_id: str) -> Revision | None:
        """Return one revision, or None."""
        ...

    async def list_revisions(self, account: Accounts, app_name: str | None, environment: str | None) -> list[Revision]:
        """Return revisions, newest first; None does not restrict."""
        ...

    async def page_revisions(self, account: Accounts, after: str, limit: int) -> list[Revision]:
        """Return the next revisions by id, after this one; empty at the end."""
        ...

    async def delete_revision(self, account: Accounts, revision_id: str) -> bool:
        """Delete a revision; False if it does not exist.

        Raises:
            FailedPrecondition: an app serves it or is moving to it.
        """
        ...

    async def save_app(self, app: App) -> None:
        """Insert or replace an app.

        Raises:
            FailedPrecondition: its revision or environment does not exist.
        """
        ...

    async def get_app(self, account: AccountId, name: str) -> App | None:
        """Return one app by its full name, or None."""
        ...

    async def list_apps(self, account: Accounts, environment: str | None) -> list[App]:
        """Return apps by account and name; None is all environments."""
        ...

    async def delete_app(self, account: AccountId, name: str) -> App | None:
        """Delete an app and return it; None if it does not exist."""
        ...

    async def save_runners(self, runners: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        """Insert or replace runners and add these changes to their histories, all or nothing."""
        ...

    async def runner_history(self, account: Accounts, runner_id: str) -> list[StateChange]:
        """Return a runner's state changes, oldest first; empty if it is not known."""
        ...

    async def app_changes(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, str, int] | None, limit: int
    ) -> list[AppChange]:
        """Return state changes of an app's runners, newest first; the runners' tokens are empty.

        Args:
            since: only those at or after this.
            until: only those before this.
            before: only those behind this time, runner and number.
            limit: at most so many.
        """
        ...

    async def get_runner(self, account: Accounts, runner_id: str) -> Runner | None:
        """Return one runner, or None; ended ones are kept for a while."""
        ...

    async def list_runners(self, account: Accounts, ended_since: datetime | None) -> list[Runner]:
        """Return the living runners, and those that ended at or after `ended_since` if given, oldest first.

        The token of an ended runner is empty here; `get_runner` returns it. A token that cannot be opened is empty.
        """
        ...

    async def page_ended_runners(
        self, account: AccountId, ended_since: datetime, app_id: AppId | None, after: tuple[datetime, str], limit: int
    ) -> list[Runner]:
        """Return runners that ended at or after a time, by end and id; their tokens are empty.

        Args:
            app_id: only those of this app; None means all.
            after: only those behind this end and id.
            limit: at most so many.
        """
        ...

    async def forget_runners(self, ended_before: datetime) -> int:
        """Delete the runners of every account that ended before this time, and return how many."""
        ...

    async def add_key(self, key: Key) -> None:
        """Add a key.

        Raises:
            AlreadyExists: a key has this id.
        """
        ...

    async def get_key(self, account: Accounts, key_id: str) -> Key | None:
        """Return one key, or None; revoked keys are kept."""
        ...

    async def list_keys(self, account: Accounts) -> list[Key]:
        """Return the keys that are not revoked, oldest first."""
        ...

    async def revoke_key(self, account: AccountId, key_id: str, at: datetime) -> bool:
        """Mark a key as revoked; False if there is none of this id that is not revoked."""
        ...

    async def expire_key(self, account: AccountId, key_id: str, at: datetime) -> bool:
        """Set when a key expires; False if there is none of this id that is not revoked."""
        ...

    async def note_key_use(self, account: AccountId, key_id: str, at: datetime) -> bool:
        """Note when a key was used last; False if there is none of this id."""
        ...

    async def save_secret(self, secret: SealedSecret) -> None:
        """Insert or replace a secret.

        Raises:
            FailedPrecondition: its environment does not exist.
        """
        ...

    async def list_secrets(self, account: AccountId, environment: str | None) -> list[SealedSecret]:
        """Return secrets by environment and name; None is all environments."""
        ...

    async def delete_secret(self, account: AccountId, environment: str, name: str) -> bool:
        """Delete a secret; False if it does not exist."""
        ...

    async def add_environment(self, environment: Environment) -> bool:
        """Add an environment; False if the account has one of this name."""
        ...

    async def get_environment(self, account: AccountId, name: str) -> Environment | None:
        """Return one environment, or None."""
        ...

    async def list_environments(self, account: AccountId) -> list[Environment]:
        """Return all environments, the default one first, then by name."""
        ...

    async def delete_environment(self, account: AccountId, name: str) -> bool:
        """Delete an environment with its secrets, in one transaction; False if it does not exist.

        Raises:
            FailedPrecondition: it still has apps.
        """
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class LogStore(Protocol):
    """Log lines, each exactly once."""

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Keep lines, durably; one whose (runner_id, sequence) is known is dropped.

        Raises:
            Unavailable: the database cannot be used; none of them is kept.
        """
        ...

    async def last_sequence(self, account: Accounts, runner_id: str) -> int:
        """Return the highest sequence number that is kept for a runner; 0 for none."""
        ...

    async def first_unsent(
        self, account: AccountId, app_name: str, sent: Mapping[str, int], since: datetime | None
    ) -> datetime | None:
        """Return the time of an app's oldest line that a follower has not got, or None.

        Args:
            account: the app's owner.
            app_name: the app's full name.
            sent: by runner, the last sequence that the follower has got.
            since: from when on lines of runners that `sent` does not name count; None is from the first.
        """
        ...

    async def page(self, account: AccountId, query: LogQuery) -> LogPage:
        """Return some lines, in the query's order.

        Raises:
            InvalidArgument: the cursor (field `cursor`) is not one of this store's.
        """
        ...

    async def forget(self, before: datetime) -> int:
        """Delete the lines of every account that are older than this time, and return how many."""
        ...

    def bound(self, most_bytes: int, passed: Callable[[], None]) -> None:
        """Call `passed` whenever lines are stored and all stored lines take more than about so many bytes.

        Lines from before the start count from the first call of `shrink` on.
        """
        ...

    async def shrink(self, most_bytes: int, room_bytes: int = 0) -> int:
        """Delete the oldest lines of every account if all take more than about so many bytes; return how many.

        Args:
            most_bytes: what they may take.
            room_bytes: how much less than that the rest takes, so that the next lines pass it later.
        """
        ...
