"""Apps and revisions in memory, for the router and the loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping

from fal_server.aio.tasks import run_to_completion
from fal_server.core import names
from fal_server.core.app_events import failed_deploy, recorded_between
from fal_server.core.apps import App, settled
from fal_server.core.faults import NotFound
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Accounts, AppId, within
from fal_server.core.revisions import Json, Revision
from fal_server.core.scaling import carried_over
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Clock, Store

_MOST_ABANDONED = 1000


async def existing_environment(
    store: Store, account: AccountId, name: str | None, field: str = "environment_name"
) -> str:
    """Return the name of an existing environment; None and "" mean `main`.

    Raises:
        InvalidArgument: it is not a valid name.
        NotFound: there is no such environment.
    """
    checked = names.environment_name(name or names.MAIN, field)
    if checked != names.MAIN and await store.get_environment(account, checked) is None:
        raise NotFound(f"environment {checked!r}", f"`fal environments create {checked}` makes it")
    return checked


class Catalog:
    """Holds all apps and the revisions in use. It changes apps in the store first.

    Cache: `load` rebuilds it from the store. The ephemeral apps of `fal run` exist only here, and end with their call.

    Attributes:
        changed: notified at every change.
    """

    def __init__(self, store: Store, clock: Clock, changed: ChangeNotifier) -> None:
        self._store = store
        self._clock = clock
        self.changed = changed
        # Held from reading an app until it is written, so that no change overwrites another.
        self._lock = asyncio.Lock()
        self._abandoned: dict[str, str] = {}
        self._apps: dict[AppId, App] = {}
        self._ephemeral: dict[AppId, App] = {}
        self._revisions: dict[str, Revision] = {}
        self._touched: set[AppId] = set()

    def take_touched(self) -> set[AppId]:
        """Return the apps that changed here since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    async def load(self) -> None:
        """Read everything from the store, once at startup."""
        self._apps = {app.app_id: app for app in await self._store.list_apps(EVERY_ACCOUNT, None)}
        self._touched |= self._apps.keys()
        for app in self._apps.values():
            for revision_id in filter(None, (app.revision_id, app.next_revision_id)):
                await self.find_revision(EVERY_ACCOUNT, revision_id)

    @property
    def apps(self) -> Iterable[App]:
        """The deployed apps of every account."""
        return self._apps.values()

    def get(self, app_id: AppId) -> App | None:
        """Return an app, deployed or ephemeral, or None."""
        return self._apps.get(app_id) or self._ephemeral.get(app_id)

    def require(self, app_id: AppId) -> App:
        """Return a deployed app.

        Raises:
            NotFound: there is no such app.
        """
        app = self._apps.get(app_id)
        if app is None:
            where = "" if app_id.environment == names.MAIN else f" --env {app_id.environment}"
            raise NotFound(f"app {str(app_id)!r}", f"`fal apps list{where}` shows which exist")
        return app

    async def require_in(self, account: AccountId, name: str, environment: str, field: str = "application_name") -> App:
        """Return a deployed app by a caller's name and environment.

        Args:
            field: the request's field with the name, for the error.

        Raises:
            InvalidArgument: one of them is not a valid name.
            NotFound: there is no such environment, or no such app in it.
        """
        app_id = AppId.parse(account, names.app_name(name, names.environment_name(environment), field))
        if app_id not in self._apps:
            await self.existing_environment(account, app_id.environment)
        return self.require(app_id)

    async def existing_environment(self, account: AccountId, name: str) -> str:
        """Return the checked name of an existing environment.

        Raises:
            InvalidArgument: it is not a valid name.
            NotFound: there is no such environment.
        """
        return await existing_environment(self._store, account, name)

    @property
    def ephemeral_apps(self) -> Iterable[App]:
        """The apps of `fal run`."""
        return self._ephemeral.values()

    def is_ephemeral(self, app_id: AppId) -> bool:
        """Return whether an app belongs to a `fal run`."""
        return app_id in self._ephemeral and app_id not in self._apps

    async def change(self, app_id: AppId, change: Callable[[App], App]) -> App:
        """Change an app in the store, then here. If `change` raises, nothing changes.

        Raises:
            NotFound: there is no such app.
        """

        async def work() -> App:
            async with self._lock:
                return await self._save(change(self.require(app_id)))

        return await run_to_completion(work())

    async def put(self, app_id: AppId, make: Callable[[App | None], App]) -> App:
        """Write the app that `make` returns. `make` gets the current app or None."""

        async def work() -> App:
            async with self._lock:
                return await self._save(make(self._apps.get(app_id)))

        return await run_to_completion(work())

    async def register(self, revision: Revision, make: Callable[[App | None], App]) -> App:
        """Write a new revision together with its app. `make` gets the current app or None, and returns the new one."""

        async def work() -> App:
            async with self._lock:
                before = self._apps.get(revision.app_id)
                app = make(before)
                events = recorded_between(before, app, self._clock.now(), called=True)
                await self._store.register(revision, app, events)
                self._revisions[revision.revision_id] = revision
                self._apps[app.app_id] = app
                self._touched.add(app.app_id)
            self.changed.notify()
            return app

        return await run_to_completion(work())

    async def delete(self, app_id: AppId) -> App:
        """Delete an app.

        Raises:
            NotFound: there is no such app.
        """

        async def work() -> App:
            async with self._lock:
                app = self.require(app_id)
                await self._store.delete_app(app.account, app.name)
                self._apps.pop(app_id, None)
                self._touched.add(app_id)
            self.changed.notify()
            return app

        return await run_to_completion(work())

    def add_ephemeral(self, app: App, revision: Revision) -> None:
        """Add an app of `fal run`, so that the router finds it."""
        self._ephemeral[app.app_id] = app
        self._revisions[revision.revision_id] = revision
        self._touched.add(app.app_id)

    def drop_ephemeral(self, app: App) -> None:
        """Drop an app of `fal run`."""
        self._ephemeral.pop(app.app_id, None)
        self._revisions.pop(app.revision_id, None)
        self._touched.add(app.app_id)
        self.changed.notify()

    def known_revision(self, revision_id: str) -> Revision | None:
        """Return a revision if it is in memory, or None."""
        return self._revisions.get(revision_id)

    async def find_revision(self, account: Accounts, revision_id: str) -> Revision | None:
        """Return a revision, from memory or the store, or None."""
        known = self._revisions.get(revision_id) or await self._store.get_revision(account, revision_id)
        if known is None or not within(account, known.account):
            return None
        if self._revisions.get(revision_id) is not known:
            self._revisions[revision_id] = known
            self._touched.add(known.app_id)
        return known

    async def metadata(self, app_id: AppId) -> Mapping[str, Json]:
        """Return the metadata of an app's current revision, such as its `openapi`.

        Raises:
            NotFound: there is no such app.
        """
        app = self.require(app_id)
        revision = await self.find_revision(app.account, app.revision_id)
        return {} if revision is None else revision.metadata

    def forget_revision(self, revision_id: str) -> None:
        """Drop a revision that was deleted from the store."""
        if (known := self._revisions.pop(revision_id, None)) is not None:
            self._touched.add(known.app_id)

    def prune(self, in_use: Container[str]) -> None:
        """Drop revisions that neither an app nor `in_use` names. The store keeps them."""
        named = {app.revision_id for app in (*self._apps.values(), *self._ephemeral.values())}
        named |= {app.next_revision_id for app in self._apps.values() if app.next_revision_id}
        if len(self._revisions) > len(named):
            self._revisions = {i: r for i, r in self._revisions.items() if i in named or i in in_use}

    def on_revision(self, app: App, revision_id: str) -> App:
        """Return the app moved to a revision, with its settings. The revision must be in memory."""
        revision = self._revisions.get(revision_id)
        scaling = app.scaling if revision is None else carried_over(app.scaling, revision.scaling)
        return settled(app, revision_id=revision_id, scaling=app.next_scaling or scaling, auth_mode=app.next_auth_mode)

    async def promote(self, app_id: AppId, revision_id: str) -> None:
        """Move an app to a rolling deploy's revision. It does nothing if a newer deploy replaced it."""
        await self.find_revision(EVERY_ACCOUNT, revision_id)
        await self._settle(app_id, revision_id, lambda app: self.on_revision(app, revision_id))

    async def abandon(self, app_id: AppId, revision_id: str, reason: str = "") -> None:
        """Give up a rolling deploy, so that the app keeps its revision."""

        def stay(app: App) -> App:
            while len(self._abandoned) >= _MOST_ABANDONED:
                del self._abandoned[next(iter(self._abandoned))]
            self._abandoned[revision_id] = reason or "its runner did not become ready"
            return settled(app)

        await self._settle(app_id, revision_id, stay, reason)

    def why_abandoned(self, revision_id: str) -> str | None:
        """Return why a rolling deploy to this revision was given up."""
        return self._abandoned.get(revision_id)

    async def record_failed_deploy(self, app_id: AppId, reason: str) -> None:
        """Record that a deploy of an app did not reach a revision."""
        await self._store.record_event(failed_deploy(app_id, self._clock.now(), reason))

    async def _settle(self, app_id: AppId, revision_id: str, change: Callable[[App], App], reason: str = "") -> None:
        """End a rolling deploy to this revision if it is in progress."""

        async def work() -> None:
            async with self._lock:
                app = self._apps.get(app_id)
                if app is not None and app.next_revision_id == revision_id:
                    await self._save(change(app), called=False, reason=reason)

        await run_to_completion(work())

    async def _save(self, app: App, *, called: bool = True, reason: str = "") -> App:
        before = self._apps.get(app.app_id)
        events = recorded_between(before, app, self._clock.now(), called=called, reason=reason)
        await self._store.save_app(app, events)
        self._apps[app.app_id] = app
        self._touched.add(app.app_id)
        self.changed.notify()
        return app
