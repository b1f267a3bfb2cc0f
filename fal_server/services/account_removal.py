"""Deletes accounts. It ends everything that runs for one, then removes all its data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fal_server.access.authentication import Authenticator
from fal_server.aio.rounds import Rounds
from fal_server.core.accounts import DeletedAccount
from fal_server.core.identity import EVERY_ACCOUNT, AccountId
from fal_server.core.retention import Needed
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Blobs, Engine, EnvironmentStore, Store
from fal_server.ports.accounts import AccountStore
from fal_server.ports.files import ObjectStore
from fal_server.services.accounts import Accounts
from fal_server.services.drains import Drains
from fal_server.services.notices import Notices
from fal_server.services.queue import Queue
from fal_server.services.request_recording import RequestRecording
from fal_server.services.workflow_runs import WorkflowRuns

log = logging.getLogger(__name__)
WHY = "its account was deleted"
# How long a caller waits for the removal, which continues without the caller.
_WAIT_SECONDS = 20.0
_LOOK_SECONDS = 1.0
_PAGE = 50


class AccountRemoval:
    """Deletes accounts in two steps.

    The first is one transaction, after which nobody can use the account. The second ends its runners and removes every
    row and file. It can be repeated, so the next controller finishes what this one has started.

    Args:
        environments: of each builder; those of other accounts than the first belong to one account alone.
        objects: files with a public address.
        remove_directories: deletes the directories that belong to an account alone. Blocking, and may be repeated.
    """

    def __init__(
        self,
        store: Store,
        account_store: AccountStore,
        accounts: Accounts,
        access: Authenticator,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        queue: Queue,
        workflow_runs: WorkflowRuns,
        drains: Drains,
        notices: Notices,
        recording: RequestRecording,
        engine: Engine,
        blobs: Blobs,
        environments: Sequence[EnvironmentStore],
        objects: ObjectStore,
        remove_directories: Callable[[AccountId], None],
        changed: ChangeNotifier,
    ) -> None:
        self._store = store
        self._account_store = account_store
        self._accounts = accounts
        self._access = access
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._queue = queue
        self._workflow_runs = workflow_runs
        self._drains = drains
        self._notices = notices
        self._recording = recording
        self._engine = engine
        self._blobs = blobs
        self._environments = environments
        self._objects = objects
        self._remove_directories = remove_directories
        self._changed = changed
        self._due = ChangeNotifier()
        self._removed = ChangeNotifier()

    async def delete(self, nickname: str, *, wait_seconds: float = _WAIT_SECONDS) -> bool:
        """Delete an account. When this returns, nobody can use it, and its calls have ended.

        Returns:
            Whether all its data is already removed; the rest is removed in the background.

        Raises:
            NotFound: there is no such account.
            FailedPrecondition: it is the account of the controller's owner.
        """
        account = await self._accounts.end(nickname)
        self._due.notify()
        try:
            async with asyncio.timeout(wait_seconds):
                while await self._is_left(account.id):
                    await self._removed.wait(self._removed.count, _LOOK_SECONDS)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Remove the data of deleted accounts until cancelled. Those of an earlier controller are included."""
        await Rounds("removal of deleted accounts", self._round).run(self._due)

    async def _is_left(self, account: AccountId) -> bool:
        return any(each.id == account for each in await self._account_store.deleted())

    async def _round(self) -> None:
        for account in await self._account_store.deleted():
            await self._remove(account)
            self._removed.notify()

    async def _remove(self, account: DeletedAccount) -> None:
        """End everything that runs, then remove all data. The account's own row goes last."""
        await self._access.open_calls.ended(account.keys)
        await self._drains.end_account(account.id)
        await self._notices.end_account(account.id)
        await self._workflow_runs.end_account(account.id)
        for app in [app for app in self._catalog.apps if app.account == account.id]:
            await self._catalog.delete(app.app_id)
            self._dispatcher.drop_app(app.app_id)
            self._fleet.forgive(app.app_id)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._queue.end_account(account.id))
            tasks.create_task(self._end_runners(account.id))
        await self._recording.store()
        await self._remove_content(account)
        await asyncio.to_thread(self._objects.forget_account, account.id)
        await asyncio.to_thread(self._remove_directories, account.id)
        erased = 0
        # A write that was in progress when the account ended may have added rows.
        while some := await self._account_store.erase(account.id):
            erased += some
        await self._account_store.forget(account.id)
        log.info("removed everything of the deleted account %s: %d rows", account.id, erased)

    async def _end_runners(self, account: AccountId) -> None:
        killed: set[str] = set()
        while runners := self._fleet.of_account(account):
            seen = self._changed.count
            for runner in runners:
                killed.add(runner.runner_id)
                await self._fleet.kill(runner.runner_id, WHY)
            await self._changed.wait(seen, _LOOK_SECONDS)
        for runner_id in killed:
            await self._engine.release(runner_id)  # with its last log lines, which are removed like the others

    async def _remove_content(self, account: DeletedAccount) -> None:
        """Delete the code and the environments that only this account's revisions name."""
        its, others, last = Needed(), Needed(), ""
        while page := await self._store.page_revisions(EVERY_ACCOUNT, last, _PAGE):
            its = its.plus(revision for revision in page if revision.account == account.id)
            others = others.plus(revision for revision in page if revision.account != account.id)
            last = page[-1].revision_id
            for revision in page:
                if revision.account == account.id:
                    self._catalog.forget_revision(revision.revision_id)
        # An account that deploys the same code from now on uses it after this account's end.
        await asyncio.to_thread(self._blobs.discard, its.blobs - others.blobs, account.deleted_at)
        for environments in self._environments:
            for generation in await asyncio.to_thread(environments.generations):
                if generation.env_id in its.env_ids - others.env_ids:
                    await environments.delete(generation)
