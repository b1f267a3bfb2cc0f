"""Deletes code, files and environments that nothing needs any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from fal_server.core.faults import Fault
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.retention import LEAST_AGE, Needed, in_use_since, superfluous
from fal_server.core.revisions import Revision
from fal_server.live.catalog import Catalog
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, ContentStore, EnvironmentStore, Store

log = logging.getLogger(__name__)
# Read this many revisions at a time, so that requests are served in between.
_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The number of deleted items of each kind."""

    blobs: int = 0
    files: int = 0
    environments: int = 0


class Retention:
    """Deletes stored content that no revision and no runner needs.

    Args:
        blobs: pickled code.
        files: the files of apps.
        environments: the environments of each builder.
        retention: how long unneeded content is kept after its last use; None keeps it forever.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        fleet: Fleet,
        blobs: ContentStore,
        files: ContentStore,
        environments: Sequence[EnvironmentStore],
        clock: Clock,
        retention: timedelta | None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._fleet = fleet
        self._blobs = blobs
        self._files = files
        self._environments = environments
        self._clock = clock
        self._retention = retention

    async def sweep(self) -> Deleted:
        """Delete unneeded content once. Content that cannot be deleted is logged, and left to the next sweep.

        Raises:
            Unavailable: the database or the disk cannot be read.
        """
        if self._retention is None:
            return Deleted()
        # Files carry the wall clock's time: the smaller age counts, so that no clock change makes them old.
        before = min(self._clock.now(), self._clock.wall()) - max(self._retention, LEAST_AGE)
        # List environments before reading revisions: any that becomes needed later is newer than `before`.
        found = [await asyncio.to_thread(environment.generations) for environment in self._environments]
        needed = await self._needed()
        revisions = self._of_runners()
        if revisions is None:
            return Deleted()
        needed = needed.plus(revisions)
        env_ids = {r.revision_id: r.environments[0].env_id for r in revisions if r.environments}
        in_use = in_use_since(self._fleet.runners, env_ids)
        blobs = files = count = 0
        for environment, generations in zip(self._environments, found, strict=True):
            for generation in superfluous(generations, needed, in_use, before):
                with _left(f"environment {generation.name}"):
                    count += await environment.delete(generation)
        with _left("code"):
            blobs = await asyncio.to_thread(self._blobs.forget, needed.blobs, before)
        with _left("files of apps"):
            files = await asyncio.to_thread(self._files.forget, needed.files, before)
        return Deleted(blobs=blobs, files=files, environments=count)

    async def _needed(self) -> Needed:
        needed, last = Needed(), ""
        while page := await self._store.page_revisions(EVERY_ACCOUNT, last, _PAGE):
            needed = needed.plus(page)
            last = page[-1].revision_id
            await asyncio.sleep(0)
        return needed

    def _of_runners(self) -> list[Revision] | None:
        """Return the revisions of living runners and `fal run`, stored or not. None if one is unknown."""
        ids = {runner.revision_id for runner in self._fleet.runners}
        ids |= {app.revision_id for app in self._catalog.ephemeral_apps}
        known = [self._catalog.known_revision(revision_id) for revision_id in ids]
        found = [revision for revision in known if revision is not None]
        return found if len(found) == len(known) else None


@contextmanager
def _left(what: str) -> Generator[None]:
    """Log that something cannot be deleted, and continue."""
    try:
        yield
    except Fault as fault:
        log.warning("%s that nothing needs cannot be deleted yet: %s", what, fault.message)
    except Exception:
        log.exception("%s that nothing needs cannot be deleted yet", what)
