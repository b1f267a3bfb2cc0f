"""The interface for the state directory's owner. It is a unix socket that requires no key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fal_server.composition.admin_key import ensure_admin_key
from fal_server.composition.content import StoredContent
from fal_server.composition.files import socket_path
from fal_server.composition.live import LiveState
from fal_server.composition.nodes import JoinedNodes
from fal_server.composition.ownership import Ownership
from fal_server.composition.shared_secrets import SharedSecrets
from fal_server.composition.state import StateDir
from fal_server.composition.use_cases import UseCases
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL, Principal, Scope
from fal_server.http.routes.owner import owner_app
from fal_server.http.routes.uploader import UnixListener
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.services.adoption import Adoption

if TYPE_CHECKING:
    from fal_server.engines.ray.placer import RayPlacer

_OWNER = Principal(key_id="owner", scope=Scope(account=LOCAL, permissions=frozenset({"*"})))


async def listen_for_owner(
    *,
    state: StateDir,
    live: LiveState,
    use_cases: UseCases,
    accounts: KnownAccounts,
    nodes: JoinedNodes,
    ownership: Ownership | None,
    shared: SharedSecrets | None,
    ray: RayPlacer | None,
    adoption: Adoption,
    content: StoredContent,
    request_payloads: bool,
    stack: AsyncExitStack,
) -> Path:
    """Answer on the owner's socket until the stack is closed. Return its path.

    Args:
        request_payloads: whether inputs and outputs of direct requests are kept.

    Raises:
        Unavailable: the socket cannot be made.
    """
    path = socket_path(state.owner_socket)

    async def renew_key() -> None:
        await use_cases.recorder.record(_OWNER, "POST /new-key", "", source=str(path))
        await ensure_admin_key(state, use_cases.keys, renew=True)
        if shared is not None:
            await shared.keep(state)

    async def note(action: str, target: str) -> None:
        await use_cases.recorder.record(_OWNER, action, target, source=str(path))

    async def counts() -> Mapping[str, object]:
        """Return the counts for every account, and who shares the database. Ended runners do not count."""
        states: Counter[str] = Counter()
        for account in accounts.all():
            scope = replace(_OWNER.scope, account=account.id)
            views = await use_cases.runners.list(scope, since=None, include_pending=True)
            states.update(view.state.value for view in views)
        apps = sum(1 for _ in live.catalog.apps)
        return {
            "apps": apps,
            "runners": sum(states.values()),
            "runners_by_state": dict(states),
            "to_adopt": adoption.left,
            "lease": None if ownership is None else ownership.described(),
            "request_payloads": request_payloads,
            "trusted": nodes.trusted_networks(),
            "ray": None if ray is None else ray.described(),
            "content": {"where": content.where, "trouble": await asyncio.to_thread(content.trouble)},
        }

    listener = UnixListener(AsgiAdapter(owner_app(renew_key=renew_key, counts=counts, nodes=nodes, note=note)))
    try:
        await listener.start(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be listened on: {error.strerror}") from error
    stack.push_async_callback(listener.close, 1.0)
    return path
