"""A controller that waits for its database. It passes connections on to the owner until it is the owner itself."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict

from fal_grpc import VERSION
from fal_runner.process.proc import boot_id, own_process
from fal_server.composition.addresses import Addresses, cannot_listen
from fal_server.composition.options import LOOPBACK
from fal_server.composition.ownership import Ownership, own
from fal_server.composition.settings import Settings
from fal_server.composition.state import Running, StateDir
from fal_server.engines.local import RunnerGroups, end_all
from fal_server.http.server.forwarder import Forwarder
from fal_server.store.sql.lease import LeaseState

log = logging.getLogger(__name__)


class Standby:
    """Claims the database, if need be after a wait.

    Args:
        stack: gives the lease back when it is closed, after what is built on it later.
        ready: called when it begins to wait, with its addresses as one line of JSON.
    """

    def __init__(
        self,
        *,
        state: StateDir,
        settings: Settings,
        addresses: Addresses,
        stack: AsyncExitStack,
        ready: Callable[[str], None],
    ) -> None:
        self._state = state
        self._settings = settings
        self._addresses = addresses
        self._stack = stack
        self._ready = ready
        self._forwarder: Forwarder | None = None
        self._target: tuple[str, int] | None = None
        self._who = ""

    async def own(self, stop: asyncio.Event, on_lost: Callable[[], Awaitable[None]]) -> Ownership | None:
        """Wait until no other controller has the database, and claim it. Return None if `stop` was set first.

        Raises:
            FailedPrecondition: another controller has it, and this one is not to wait.
            Unavailable: the database, the master key or the port cannot be used.
        """
        lease, ownership = await own(
            state=self._state,
            settings=self._settings,
            addresses=self._addresses,
            stop=stop,
            waits=self._wait_for,
            on_lost=on_lost,
        )
        self._stack.push_async_callback(lease.close)
        if ownership is None:
            return None
        self._stack.push_async_callback(ownership.close)
        if self._forwarder is not None:
            # The sockets go on listening: who comes now is served once this controller answers.
            self._forwarder.stop_accepting()
            host = self._settings.host if self._settings.listens_on_one else LOOPBACK
            self._target = host, self._addresses.port
            self._forwarder.cut_off()
        return ownership

    async def _wait_for(self, found: LeaseState | None) -> None:
        """Pass connections on to the owner of a lease."""
        self._who = "another controller" if found is None else f"{found.machine} at {found.address}"
        log.info("waiting for the database: %s has it", self._who)
        self._target = None if found is None else _parsed(found.address)
        if self._forwarder is None:
            # The owner gave up the runners of this directory, if it has any: it cannot reach them.
            await end_all(self._state.runners, RunnerGroups.detect(self._state.root))
            self._forwarder = Forwarder(lambda: self._target, self._trouble)
            try:
                self._forwarder.start(self._addresses.sockets)
            except OSError as error:
                raise cannot_listen(self._settings, error) from error
            self._stack.push_async_callback(self._forwarder.close)
        self._forwarder.cut_off()
        running = Running(
            pid=os.getpid(),
            started_ticks=own_process().started_ticks,
            boot_id=boot_id(),
            inode=self._state.root.stat().st_ino,
            host=self._settings.host,
            port=self._addresses.port,
            grpc_port=0,
            version=VERSION,
            tls=self._addresses.tls,
            local_authority=self._settings.tls is not None and self._settings.tls.certificate is None,
            standby=self._who,
        )
        self._state.announce(running)
        self._ready(json.dumps(asdict(running)) + "\n")

    def _trouble(self) -> str:
        return (
            f"this controller waits for the database, which {self._who} has, and that does not answer: try again in "
            "some seconds"
        )


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
