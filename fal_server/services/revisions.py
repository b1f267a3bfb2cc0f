"""Lists and deletes revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from fal_server.core import names
from fal_server.core.apps import settled
from fal_server.core.deploy_changes import Change, changes
from fal_server.core.faults import FailedPrecondition, NotFound
from fal_server.core.identity import AppId, Scope
from fal_server.core.revisions import Json, Revision
from fal_server.core.scaling import carried_over
from fal_server.live.catalog import Catalog
from fal_server.live.fleet import Fleet
from fal_server.ports import Store
from fal_server.services.views import RevisionView

_MOST_SOURCE_LINES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionComparison:
    """A revision, and what moving the app to it would change. For the current revision, it is what the move changed.

    Attributes:
        other: the app's current revision, or for the current one its predecessor; None if there is none.
        source: the changes of the source code in the unified form; empty if there are none, or too much code.
    """

    revision: Revision
    other: Revision | None
    current: bool
    changes: Sequence[Change]
    source: Sequence[str]


class Revisions:
    """The use cases of revisions."""

    def __init__(self, store: Store, catalog: Catalog, fleet: Fleet) -> None:
        self._store = store
        self._catalog = catalog
        self._fleet = fleet

    async def list(self, scope: Scope, app_name: str | None, environment: str | None) -> Sequence[RevisionView]:
        """Return revisions, newest first.

        Args:
            app_name: only those of this app.
            environment: only those of this environment; "" and None mean all, or `main` if an app is named.

        Raises:
            NotFound: there is no such app, or no such environment.
        """
        full: str | None = None
        if app_name:
            full = (await self._catalog.require_in(scope.account, app_name, environment or "")).name
        elif environment:
            await self._catalog.existing_environment(scope.account, environment)
        revisions = await self._store.list_revisions(scope.account, full, None if full else environment or None)
        current = {app.revision_id for app in self._catalog.apps}
        return [
            RevisionView(
                revision=revision,
                active_runners=self._fleet.active(revision.app_id, revision.revision_id),
                current=revision.revision_id in current,
            )
            for revision in revisions
        ]

    async def metadata(self, scope: Scope, app_name: str) -> Mapping[str, Json]:
        """Return the deployer's metadata of an app's current revision. An example is its `openapi`.

        Args:
            app_name: the app's full name.

        Raises:
            NotFound: there is no such app.
        """
        return await self._catalog.metadata(AppId.parse(scope.account, app_name))

    async def compare(self, scope: Scope, app_name: str, revision_id: str) -> RevisionComparison:
        """Compare a revision with the app's current one. The current one is compared with its predecessor.

        Args:
            app_name: the app's full name.

        Raises:
            NotFound: there is no such app, or no such revision of it.
        """
        app = self._catalog.require(AppId.parse(scope.account, app_name))
        revisions = {one.revision_id: one for one in await self._store.list_revisions(scope.account, app_name, None)}
        revision = revisions.get(revision_id)
        if revision is None:
            raise NotFound(f"revision {revision_id[:80]!r}", f"`fal apps list-rev {app_name}` shows those of the app")
        current = revision_id == app.revision_id
        older = [one for one in revisions.values() if one.created_at < revision.created_at]  # newest first
        other = next(iter(older), None) if current else revisions.get(app.revision_id)
        after = settled(app, revision_id=revision_id, scaling=carried_over(app.scaling, revision.scaling))
        return RevisionComparison(
            revision=revision,
            other=other,
            current=current,
            changes=() if other is None else changes(app, other, after, revision),
            source=() if other is None else _source_changes(other, revision),
        )

    async def delete(self, scope: Scope, revision_id: str) -> None:
        """Delete a revision that no app uses.

        Raises:
            NotFound: there is no such revision.
            FailedPrecondition: an app is on it, or is moving to it.
        """
        names.identifier(revision_id, "application_id")
        for app in self._catalog.apps:
            if app.account == scope.account and revision_id in (app.revision_id, app.next_revision_id):
                raise FailedPrecondition(
                    f"revision {revision_id} serves app {app.name!r}: deploy or `fal apps set-rev` another one first, "
                    f"or delete the app with `fal apps delete {app.name}`"
                )
        if not await self._store.delete_revision(scope.account, revision_id):
            raise NotFound(f"revision {revision_id!r}", "`fal apps list-rev` shows which exist")
        self._catalog.forget_revision(revision_id)


def _source_changes(before: Revision, after: Revision) -> list[str]:
    old, new = ((one.source_code or "").splitlines() for one in (before, after))
    if max(len(old), len(new)) > _MOST_SOURCE_LINES:
        return []  # comparing takes the square of their number
    return list(unified_diff(old, new, before.revision_id[:8], after.revision_id[:8], lineterm=""))
