"""The Protocols of the database: rows of every noun, and log lines.

Every call that lists, finds or deletes names the account that it is for. Rows of other accounts do not exist for it, so
an id of another account gets the same answer as an unknown one. EVERY_ACCOUNT is for the controller's own work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.app_events import AppChange, RecordedEvent
from fal_server.core.apps import App
from fal_server.core.history import StateChange
from fal_server.core.identity import AccountId, Accounts, AppId
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner


class Store(Protocol):
    """Data that must survive a crash. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def next_epoch(self) -> int:
        """Count a start of a controller on this data. Return its number, which is higher than each before it."""
        ...

    async def register(self, revision: Revision, app: App, events: Sequence[RecordedEvent] = (), /) -> None:
        """Add a revision, insert or replace its app, and add these events. Either all of it is written, or nothing.

        Raises:
            AlreadyExists: a revision has this id.
            FailedPrecondition: the app's environment or another revision that it names does not exist.
        """
        ...

    async def get_revision(self, account: Accounts, revision_id: str) -> Revision | None:
        """Return one revision, or None."""
        ...

    async def list_revisions(self, account: Accounts, app_name: str | None, environment: str | None) -> list[Revision]:
        """Return revisions, newest first; None means no restriction."""
        ...

    async def page_revisions(self, account: Accounts, after: str, limit: int) -> list[Revision]:
        """Return the next revisions by id, after this one. It is empty at the end."""
        ...

    async def delete_revision(self, account: Accounts, revision_id: str) -> bool:
        """Delete a revision; return False if it does not exist.

        Raises:
            FailedPrecondition: an app serves it or is moving to it.
        """
        ...

    async def save_app(self, app: App, events: Sequence[RecordedEvent] = (), /) -> None:
        """Insert or replace an app and add these events, all or nothing.

        Raises:
            FailedPrecondition: its revision or environment does not exist.
        """
        ...

    async def get_app(self, account: AccountId, name: str) -> App | None:
        """Return one app by its full name, or None."""
        ...

    async def list_apps(self, account: Accounts, environment: str | None) -> list[App]:
        """Return apps by account and name; None means all environments."""
        ...

    async def delete_app(self, account: AccountId, name: str) -> App | None:
        """Delete an app and return it; None if it does not exist."""
        ...

    async def record_event(self, event: RecordedEvent) -> None:
        """Add an event to an app's history. The app need not exist."""
        ...

    async def recorded_events(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, int] | None, limit: int
    ) -> list[RecordedEvent]:
        """Return recorded events of an app, newest first.

        Args:
            since: only those at or after this.
            until: only those before this.
            before: only those after this time and number in that order.
            limit: at most this many.
        """
        ...

    async def forget_events(self, recorded_before: datetime) -> int:
        """Delete every account's recorded events that are older than this. Return how many were deleted."""
        ...

    async def save_runners(self, runners: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        """Insert or replace runners and add these changes, all or nothing."""
        ...

    async def runner_history(self, account: Accounts, runner_id: str) -> list[StateChange]:
        """Return a runner's state changes, oldest first; empty if it is unknown."""
        ...

    async def app_changes(
        self, app_id: AppId, since: datetime, until: datetime, before: tuple[datetime, str, int] | None, limit: int
    ) -> list[AppChange]:
        """Return state changes of an app's runners, newest first, with empty tokens.

        Args:
            since: only those at or after this.
            until: only those before this.
            before: only those after this time, runner and number in that order.
            limit: at most this many.
        """
        ...

    async def get_runner(self, account: Accounts, runner_id: str) -> Runner | None:
        """Return one runner, or None; ended ones are kept for a while."""
        ...

    async def list_runners(self, account: Accounts, ended_since: datetime | None) -> list[Runner]:
        """Return the living runners, and those ended since `ended_since` if given. The oldest come first.

        The token of an ended runner is empty here; `get_runner` returns it. A token that cannot be decrypted is empty.
        """
        ...

    async def page_ended_runners(
        self, account: AccountId, ended_since: datetime, app_id: AppId | None, after: tuple[datetime, str], limit: int
    ) -> list[Runner]:
        """Return runners that ended since a time, by end and id. Their tokens are empty.

        Args:
            app_id: only those of this app; None means all.
            after: only those after this end and id.
            limit: at most this many.
        """
        ...

    async def forget_runners(self, ended_before: datetime) -> int:
        """Delete the runners of every account that ended before this time. Return how many were deleted."""
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
        """Mark a key as revoked. Return False if no unrevoked key has this id."""
        ...

    async def expire_key(self, account: AccountId, key_id: str, at: datetime) -> bool:
        """Set a key's expiry. Return False if no unrevoked key has this id."""
        ...

    async def note_key_use(self, account: AccountId, key_id: str, at: datetime) -> bool:
        """Record a key's last use. Return False if no key has this id."""
        ...

    async def save_secret(self, secret: SealedSecret) -> None:
        """Insert or replace a secret.

        Raises:
            FailedPrecondition: its environment does not exist.
        """
        ...

    async def list_secrets(self, account: AccountId, environment: str | None) -> list[SealedSecret]:
        """Return secrets by environment and name; None means all environments."""
        ...

    async def delete_secret(self, account: AccountId, environment: str, name: str) -> bool:
        """Delete a secret; return False if it does not exist."""
        ...

    async def add_environment(self, environment: Environment) -> bool:
        """Add an environment. Return False if the account already has one of this name."""
        ...

    async def get_environment(self, account: AccountId, name: str) -> Environment | None:
        """Return one environment, or None."""
        ...

    async def list_environments(self, account: AccountId) -> list[Environment]:
        """Return all environments, the default one first, then by name."""
        ...

    async def delete_environment(self, account: AccountId, name: str) -> bool:
        """Delete an environment with its secrets, in one transaction. Return False if it does not exist.

        Raises:
            FailedPrecondition: it still has apps.
        """
        ...

    async def close(self) -> None:
        """Close the database."""
        ...


class LogStore(Protocol):
    """Log lines, each stored exactly once."""

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Store lines durably; a line whose (runner_id, sequence) is known is dropped.

        Raises:
            Unavailable: the database cannot be used; none of them is stored.
        """
        ...

    async def last_sequence(self, account: Accounts, runner_id: str) -> int:
        """Return the highest stored sequence number of a runner; 0 for none."""
        ...

    async def first_unsent(
        self, account: AccountId, app_name: str, sent: Mapping[str, int], since: datetime | None
    ) -> datetime | None:
        """Return the time of an app's oldest line that a follower lacks.

        Args:
            account: the app's owner.
            app_name: the app's full name.
            sent: the last sequence that the follower has, by runner.
            since: the earliest line of runners that `sent` does not name; None means the first.
        """
        ...

    async def page(self, account: AccountId, query: LogQuery) -> LogPage:
        """Return some lines, in the query's order.

        Raises:
            InvalidArgument: the cursor (field `cursor`) does not come from this store.
        """
        ...

    async def seal(self, before: datetime, most: int) -> int:
        """Make searches in lines before a time quick. Return how many segments of lines were made.

        Args:
            before: later lines are left, because others may still come between them.
            most: stop after about this many segments.
        """
        ...

    async def forget(self, before: datetime) -> int:
        """Delete every account's lines that are older than this time. Return how many were deleted."""
        ...

    def bound(self, most_bytes: int, passed: Callable[[], None]) -> None:
        """Call `passed` whenever lines are stored beyond about `most_bytes` in all.

        Lines from before the start count after the first call of `shrink`.
        """
        ...

    async def shrink(self, most_bytes: int, room_bytes: int = 0) -> int:
        """Delete every account's oldest lines beyond a total of about `most_bytes`. Return how many were deleted.

        Args:
            most_bytes: the largest total size.
            room_bytes: how far below that to shrink, so that the next lines exceed it later.
        """
        ...
