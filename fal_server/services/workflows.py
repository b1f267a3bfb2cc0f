"""Workflows: published, listed, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fal_server.core.faults import NotFound
from fal_server.core.identity import Scope
from fal_server.core.revisions import Json
from fal_server.core.workflows import Workflow
from fal_server.ports import Clock
from fal_server.ports.workflows import WorkflowStore


class Workflows:
    """The use cases of workflows."""

    def __init__(self, store: WorkflowStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def publish(
        self, scope: Scope, name: str, *, title: str, contents: Mapping[str, Json], is_public: bool
    ) -> Workflow:
        """Store a new workflow.

        Raises:
            InvalidArgument: the name, the title or the contents are not valid.
            AlreadyExists: the name is taken.
        """
        made = Workflow(
            account=scope.account,
            name=name,
            title=title,
            contents=contents,
            is_public=is_public,
            created_at=self._clock.now(),
        )
        await self._store.add(made)
        return made

    async def list(self, scope: Scope, *, skip: int, limit: int) -> tuple[Sequence[Workflow], int]:
        """Return workflows by name, and their total number."""
        return await self._store.page(scope.account, skip, limit)

    async def get(self, scope: Scope, name: str) -> Workflow:
        """Return one workflow.

        Raises:
            NotFound: there is no such workflow.
        """
        found = await self._store.get(scope.account, name)
        if found is None:
            raise _unknown(name)
        return found

    async def change(
        self,
        scope: Scope,
        name: str,
        *,
        new_name: str | None = None,
        title: str | None = None,
        contents: Mapping[str, Json] | None = None,
        is_public: bool | None = None,
    ) -> Workflow:
        """Change the given parts of a workflow; runs in progress continue unchanged.

        Raises:
            NotFound: there is no such workflow.
            InvalidArgument: see `publish`.
            AlreadyExists: another workflow has the new name.
        """
        found = await self.get(scope, name)
        changed = replace(
            found,
            name=found.name if new_name is None else new_name,
            title=found.title if title is None else title,
            contents=found.contents if contents is None else contents,
            is_public=found.is_public if is_public is None else is_public,
        )
        if not await self._store.replace(name, changed):
            raise _unknown(name)
        return changed

    async def delete(self, scope: Scope, name: str) -> None:
        """Delete a workflow; its runs continue, and stay readable.

        Raises:
            NotFound: there is no such workflow.
        """
        if not await self._store.delete(scope.account, name):
            raise _unknown(name)


def _unknown(name: str) -> NotFound:
    return NotFound(f"workflow {name[:80]!r}", "GET /workflows/ lists those that exist")
