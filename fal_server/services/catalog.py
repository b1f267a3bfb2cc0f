"""The apps and revisions in memory, for the router and the loops; the store has them first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fal_server.core.apps import App
from fal_server.core.faults import NotFound
from fal_server.core.revisions import Revision
from fal_server.ports import Store
from fal_server.services.signal import Signal


class Catalog:
    """Every app by its full name, and the revisions that are in use.

    Ephemeral apps (of `fal run`) live here only: they end with the call that made them.
    """

    def __init__(self, store: Store, changed: Signal) -> None:
        self._store = store
        self._changed = changed
        self._apps: dict[str, App] = {}
        self._ephemeral: dict[str, App] = {}
        self._revisions: dict[str, Revision] = {}

    async def load(self) -> None:
        """Read everything from the store, at the start."""
        self._apps = {app.name: app for app in await self._store.list_apps(None)}
        for app in self._apps.values():
            for revision_id in filter(None, (app.revision_id, app.next_revision_id)):
                await self.find_revision(revision_id)

    @property
    def apps(self) -> Iterable[App]:
        """The deployed apps."""
        return self._apps.values()

    def get(self, name: str) -> App | None:
        """An app, deployed or ephemeral, by its full name."""
        return self._apps.get(name) or self._ephemeral.get(name)

    def require(self, name: str) -> App:
        """A deployed app.

        Raises:
            NotFound: there is none of that name.
        """
        app = self._apps.get(name)
        if app is None:
            raise NotFound(f"there is no app {name!r}: `fal apps list` shows those that there are")
        return app

    async def save(self, app: App) -> None:
        """Write an app to the store, then here."""
        await self._store.save_app(app)
        self._apps[app.name] = app
        self._changed.notify()

    async def register(self, revision: Revision, app: App) -> None:
        """Write a new revision and its app to the store, then here."""
        await self._store.register(revision, app)
        self._revisions[revision.revision_id] = revision
        self._apps[app.name] = app
        self._changed.notify()

    async def delete(self, name: str) -> App:
        """Delete an app.

        Raises:
            NotFound: there is none of that name.
        """
        self.require(name)
        app = await self._store.delete_app(name)
        self._apps.pop(name, None)
        self._changed.notify()
        if app is None:
            raise NotFound(f"there is no app {name!r}: it was deleted meanwhile")
        return app

    def add_ephemeral(self, app: App, revision: Revision) -> None:
        """Make an app of `fal run` known to the router."""
        self._ephemeral[app.name] = app
        self._revisions[revision.revision_id] = revision

    def drop_ephemeral(self, app: App) -> None:
        """Forget an app of `fal run`."""
        self._ephemeral.pop(app.name, None)
        self._revisions.pop(app.revision_id, None)

    def known_revision(self, revision_id: str) -> Revision | None:
        """A revision, without asking the store."""
        return self._revisions.get(revision_id)

    async def find_revision(self, revision_id: str) -> Revision | None:
        """A revision, or None."""
        known = self._revisions.get(revision_id) or await self._store.get_revision(revision_id)
        if known is not None:
            self._revisions[revision_id] = known
        return known

    async def promote(self, name: str, revision_id: str) -> None:
        """Move an app to the revision that a rolling deploy prepared, unless a newer deploy came between."""
        app = self._apps.get(name)
        if app is not None and app.next_revision_id == revision_id:
            await self.save(replace(app, revision_id=revision_id, next_revision_id=None))

    async def abandon(self, name: str, revision_id: str) -> None:
        """Give a rolling deploy up: the app stays where it is."""
        app = self._apps.get(name)
        if app is not None and app.next_revision_id == revision_id:
            await self.save(replace(app, next_revision_id=None))
