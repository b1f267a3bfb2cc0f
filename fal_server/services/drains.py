"""Log drains: creates, lists, pauses and deletes them. What may be a credential is sealed and never shown."""

from __future__ import annotations

import asyncio
import builtins
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from fal_server.core.drains import REACHES_BACK, DrainFormat, LogDrain, Target, Unsent, checked_drain_name
from fal_server.core.faults import AlreadyExists, NotFound, ResourceExhausted
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Scope
from fal_server.core.logs import LogLevel
from fal_server.core.names import app_name, split_app_name
from fal_server.core.outbound import checked_url
from fal_server.live.catalog import Catalog
from fal_server.live.events import ChangeNotifier
from fal_server.live.unsent_lines import UnsentLines
from fal_server.ports import Clock, Vault
from fal_server.ports.drains import DrainStore
from fal_server.ports.outbound import OutboundClient

MOST_DRAINS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainView:
    """A drain, and what waits for it.

    Attributes:
        warnings: of a new one, what will keep lines from arriving.
    """

    drain: LogDrain
    unsent: Unsent
    warnings: Sequence[str] = ()


class Drains:
    """The use cases of log drains.

    Args:
        client: knows which receivers may not be called; None calls nobody.
        catalog: knows which apps exist; None knows none.

    Attributes:
        changed: notified when a drain is created, paused, resumed or deleted.
    """

    def __init__(
        self,
        store: DrainStore,
        unsent: UnsentLines,
        vault: Vault,
        clock: Clock,
        *,
        client: OutboundClient | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._store = store
        self._unsent = unsent
        self._vault = vault
        self._clock = clock
        self._creating = asyncio.Lock()
        self.changed = ChangeNotifier()

    async def create(
        self,
        scope: Scope,
        name: str,
        url: str,
        *,
        form: DrainFormat = DrainFormat.NDJSON,
        apps: Sequence[str] = (),
        least_level: LogLevel = LogLevel.TRACE,
        headers: Mapping[str, str] | None = None,
        signing_key: str | None = None,
    ) -> DrainView:
        """Add a drain. It begins with the lines of the last half minute.

        Args:
            apps: only lines of these; empty means all.
            least_level: only lines of this level and above.
            headers: of each delivery.
            signing_key: for HMAC-SHA256; None does not sign.

        Raises:
            InvalidArgument: a name, the URL, a header or the key is not valid.
            AlreadyExists: the account has a drain of this name.
            ResourceExhausted: the account has too many drains.
        """
        checked_drain_name(name)
        target = Target(url=checked_url("url", url), headers=headers or {}, signing_key=signing_key)
        named = [app_name(app, split_app_name(app)[1], f"apps[{place}]") for place, app in enumerate(apps)]
        now = self._clock.now()
        drain_id = str(uuid.uuid4())
        drain = LogDrain(
            account=scope.account,
            drain_id=drain_id,
            name=name,
            shown_url=target.shown_url,
            format=form,
            apps=tuple(dict.fromkeys(named)),
            least_level=least_level,
            header_names=tuple(sorted(target.headers)),
            signed=signing_key is not None,
            created_at=now,
            since=now - REACHES_BACK,
            sealed=self._vault.seal(_context(drain_id), _text(target)),
        )
        async with self._creating:
            if len(await self._store.list(scope.account)) >= MOST_DRAINS:
                raise ResourceExhausted(f"there are {MOST_DRAINS} drains already: delete one that is not needed")
            if not await self._store.add(drain):
                raise AlreadyExists(f"drain {name!r} exists already: choose another name, or delete it first")
        self.changed.notify()
        return replace(await self._view(drain), warnings=await self._warnings(drain, target))

    async def list(self, scope: Scope) -> Sequence[DrainView]:
        """Return the drains of an account by name."""
        return [await self._view(drain) for drain in await self._store.list(scope.account)]

    async def get(self, scope: Scope, name: str) -> DrainView:
        """Return one drain.

        Raises:
            NotFound: there is no such drain.
        """
        drain = await self._store.get(scope.account, checked_drain_name(name))
        if drain is None:
            raise _none(name)
        return await self._view(drain)

    async def delete(self, scope: Scope, name: str) -> None:
        """Delete a drain with its cursor.

        Raises:
            NotFound: there is no such drain.
        """
        if not await self._store.delete(scope.account, checked_drain_name(name)):
            raise _none(name)
        self.changed.notify()

    async def pause(self, scope: Scope, name: str, *, paused: bool) -> None:
        """Pause a drain, or resume it with the lines that waited.

        Raises:
            NotFound: there is no such drain.
        """
        if not await self._store.pause(scope.account, checked_drain_name(name), paused):
            raise _none(name)
        self.changed.notify()

    async def end_account(self, account: AccountId) -> None:
        """Delete all drains of an account; nothing more is sent for it."""
        for drain in await self._store.list(account):
            await self._store.delete(account, drain.name)
        self.changed.notify()

    async def every(self) -> Sequence[LogDrain]:
        """Return the drains of all accounts."""
        return await self._store.list(EVERY_ACCOUNT)

    def target(self, drain: LogDrain) -> Target:
        """Return where and with what a drain sends.

        Raises:
            Unavailable: it was sealed with another master key, or damaged.
        """
        document = json.loads(self._vault.open(_context(drain.drain_id), drain.sealed))
        return Target(url=document["url"], headers=document["headers"], signing_key=document["signing_key"])

    async def _warnings(self, drain: LogDrain, target: Target) -> Sequence[str]:
        found: builtins.list[str] = []
        parts = urlsplit(target.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if self._client is not None and (reason := await self._client.why_forbidden(parts.hostname or "", port)):
            found.append(reason)
        if self._catalog is not None:
            known = {str(app.app_id) for app in self._catalog.apps if app.account == drain.account}
            found += [
                f"there is no app {app!r} yet: `fal apps list` shows which exist"
                for app in drain.apps
                if app not in known
            ]
        return found

    async def _view(self, drain: LogDrain) -> DrainView:
        behind = self._unsent.of(drain.drain_id)
        # One that the loop has not taken up yet is looked at as a whole.
        runners = await self._store.behind(drain) if behind is None else behind.runners
        return DrainView(drain=drain, unsent=await self._store.unsent(drain, runners) if runners else Unsent())


def _context(drain_id: str) -> str:
    return f"log drain {drain_id}"


def _text(target: Target) -> str:
    return json.dumps({"url": target.url, "headers": dict(target.headers), "signing_key": target.signing_key})


def _none(name: str) -> NotFound:
    return NotFound(f"drain {name!r}", "`fal drains list` shows which exist")
