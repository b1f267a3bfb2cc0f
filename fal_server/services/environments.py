"""Environments, each with its own apps and secrets; `main` always exists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fal_server.core.accounts import Environment
from fal_server.core.faults import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import AccountId, Scope
from fal_server.core.names import MAIN, checked_text, environment_name
from fal_server.live.catalog import existing_environment
from fal_server.ports import Clock, Store

MOST_ENVIRONMENTS = 1000
_LONGEST_DESCRIPTION = 1024
_MOST_NAMED = 10


class Environments:
    """The use cases of environments."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changes = asyncio.Lock()

    async def bootstrap(self, account: AccountId) -> None:
        """Create `main` if it does not exist."""
        await self._store.add_environment(
            Environment(account=account, name=MAIN, description=None, is_default=True, created_at=self._clock.now())
        )

    async def list(self, scope: Scope) -> Sequence[Environment]:
        """Return all environments, the default one first, then by name."""
        return await self._store.list_environments(scope.account)

    async def create(self, scope: Scope, name: str, description: str | None = None) -> Environment:
        """Create an environment without apps or secrets.

        Raises:
            InvalidArgument: the name or the description is not valid.
            AlreadyExists: the name is taken.
            ResourceExhausted: there are too many environments.
        """
        checked = self._named(name)
        if description is not None:
            checked_text(description, "description", _LONGEST_DESCRIPTION)
        made = Environment(
            account=scope.account,
            name=checked,
            description=description,
            is_default=False,
            created_at=self._clock.now(),
        )
        async with self._changes:
            if len(await self._store.list_environments(scope.account)) >= MOST_ENVIRONMENTS:
                raise ResourceExhausted(
                    f"there are {MOST_ENVIRONMENTS} environments already: delete one that is not needed"
                )
            if checked == MAIN or not await self._store.add_environment(made):
                raise AlreadyExists(f"environment {checked!r} exists already: choose another name")
        return made

    async def delete(self, scope: Scope, name: str) -> None:
        """Delete an environment and its secrets.

        Raises:
            InvalidArgument: it is not a valid name.
            NotFound: there is no such environment.
            FailedPrecondition: it is `main`, or it still has apps.
        """
        checked = self._named(name)
        if checked == MAIN:
            raise FailedPrecondition(f"environment {MAIN!r} always exists: it cannot be deleted")
        async with self._changes:
            await existing_environment(self._store, scope.account, checked, "name")
            apps = [app.name for app in await self._store.list_apps(scope.account, checked)]
            if apps:
                more = f" and {len(apps) - _MOST_NAMED} more" if len(apps) > _MOST_NAMED else ""
                raise FailedPrecondition(
                    f"environment {checked!r} still has apps ({', '.join(apps[:_MOST_NAMED])}{more}): delete them first"
                )
            if not await self._store.delete_environment(scope.account, checked):
                raise NotFound(f"environment {checked!r}", "`fal environments list` shows which exist")

    @staticmethod
    def _named(name: str) -> str:
        if not name:
            raise InvalidArgument("name", "name is empty: name the environment")
        return environment_name(name, "name")
