"""What the HTTP face asks of the rest of the controller: who may call, which runner answers, what REST shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from fal_server.core.identity import Principal
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.routing import Outcome
from fal_server.core.runners import Runner


class RoutedApp(Protocol):
    """An app as the gateway sees it."""

    @property
    def name(self) -> str:
        """The full name, with its environment."""
        ...

    @property
    def public(self) -> bool:
        """Whether it may be called without a key."""
        ...

    @property
    def request_timeout(self) -> int:
        """Seconds after which a request is cut off and its runner ended."""
        ...

    @property
    def request_start_timeout(self) -> int | None:
        """Seconds that a request waits for a runner at most; None waits as long as it takes."""
        ...


class Lease(Protocol):
    """A place on a runner, held for one request."""

    @property
    def runner_id(self) -> str:
        """Which runner."""
        ...

    @property
    def host(self) -> str:
        """Where the runner answers HTTP: an address."""
        ...

    @property
    def port(self) -> int:
        """Where the runner answers HTTP: a port."""
        ...


LeaseT = TypeVar("LeaseT", bound=Lease)


class Dispatcher(Protocol[LeaseT]):
    """Gives requests to runners, with leases of a kind of its own. Called from the event loop's thread alone."""

    def find(self, owner: str, app: str) -> RoutedApp | None:
        """The app of that name, or None."""
        ...

    def try_acquire(self, app_name: str, *, request_id: str, caller: str | None, hint: str | None) -> LeaseT | None:
        """A place on a runner that is ready and has room, without waiting; None where there is none.

        Args:
            caller: the id of the caller's key, or None.
            hint: runners that said they are warm for this word are preferred.
        """
        ...

    async def acquire(
        self, app_name: str, *, request_id: str, caller: str | None, hint: str | None, start_timeout: float | None
    ) -> LeaseT:
        """Wait for a place; starts a runner where there is none.

        Cancelling gives up the place, also one that was granted in the same turn of the loop and not yet returned.

        Args:
            start_timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            DeadlinePassed: no runner had room in that time.
            Unavailable: no runner can be started; the message says why.
            NotFound: the app is gone.
        """
        ...

    def answered(self, lease: LeaseT, hints: str | None, *, health_check: bool) -> None:
        """The head of the runner's answer has come; before `release`, and only where there is one.

        Args:
            hints: its X-Fal-Runner-Hints, what the runner is warm for from now on; None where it has none.
            health_check: whether it asks for a health check of the runner.
        """
        ...

    def release(self, lease: LeaseT, outcome: Outcome) -> None:
        """Give a place back; exactly once for each lease."""
        ...


class Access(Protocol):
    """Who holds a key, and what the key allows."""

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        """Whose key this is.

        Raises:
            Unauthenticated: no such key, a wrong secret, or a revoked one.
            Denied: the key is good but its holder is locked out.
        """
        ...

    def cached(self, key_id: str, secret: str) -> Principal | None:
        """What `authenticate` would return, where that is known without I/O."""
        ...

    def may_call_apps(self, principal: Principal) -> bool:
        """Whether the key may call apps."""
        ...


class CallTokens(Protocol):
    """The tokens that stand for a key at some apps."""

    async def caller(self, token: str, owner: str, app: str) -> str | None:
        """The id of the key that the token was made with; None where it is not good for this app."""
        ...


class RestAccess(Access, Protocol):
    """Access, and whether REST may be read."""

    def may_read(self, principal: Principal) -> bool:
        """Whether the key may read runners, logs and the account."""
        ...


class RunnerReader(Protocol):
    """Looks runners up."""

    async def get(self, runner_id: str) -> Runner:
        """One runner, also an ended one within retention.

        Raises:
            NotFound: there is no such runner.
        """
        ...


class LogReader(Protocol):
    """Reads log lines."""

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines, in the query's order."""
        ...

    def follow(self, runner_id: str, since: datetime | None) -> AsyncIterator[Sequence[LogEntry]]:
        """Lines of a runner from `since` on as they come, in batches; ends when the runner has ended.

        Raises:
            NotFound: there is no such runner.
        """
        ...


class AccountReader(Protocol):
    """The one account that this controller serves."""

    @property
    def nickname(self) -> str:
        """The owner in URLs; never one of `RESERVED_OWNERS`."""
        ...

    @property
    def user_id(self) -> str:
        """The id, in the form `provider|id`."""
        ...

    @property
    def full_name(self) -> str:
        """The name for people."""
        ...


# First segments of paths that are the controller's own, now or later: no account may have one of them as its nickname.
RESERVED_OWNERS = frozenset(
    {
        "account", "api", "applications", "auth", "billing", "comfy", "docs", "favicon.ico", "files", "health", "logs",
        "metrics", "openapi.json", "queue", "redoc", "robots.txt", "runners", "static", "storage", "tokens", "users",
        "web", "webhooks", "workflows", ".well-known",
    }
)  # fmt: skip
