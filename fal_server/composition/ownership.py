"""Decides which of several controllers owns a PostgreSQL database. It claims the lease, keeps it, and gives it back."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from fal_grpc import VERSION
from fal_server.composition.addresses import Addresses
from fal_server.composition.content import check_content
from fal_server.composition.identity import directory_id
from fal_server.composition.settings import Settings
from fal_server.composition.shared_secrets import SharedSecrets
from fal_server.composition.state import StateDir
from fal_server.core.faults import FailedPrecondition, Fault, Unavailable
from fal_server.store.crypto.master_key import load_master_key
from fal_server.store.crypto.vault import AesVault
from fal_server.store.sql.lease import TTL_SECONDS, Contender, LeaseState, OwnerLease
from fal_server.store.sql.opening import open_store, sealed_settings

log = logging.getLogger(__name__)
RENEW_SECONDS = 1.5
LOOK_SECONDS = 0.5
# Whoever takes over counts by the database's clock, and this controller by its own.
_MARGIN_SECONDS = 0.5
_since_boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Ownership:
    """The lease of this controller, which it keeps until it is closed.

    Args:
        lease: the lease, which this controller has claimed.
        epoch: the number that the claim returned.
        claimed_at: when the claim was sent, since boot.
        on_lost: called once another controller has the lease.

    Attributes:
        epoch: which start of a controller this is.
        waiting: the other controllers, for people.
    """

    def __init__(
        self, lease: OwnerLease, epoch: int, claimed_at: float, on_lost: Callable[[], Awaitable[None]]
    ) -> None:
        self.epoch = epoch
        self.waiting: Sequence[str] = ()
        self._on_certain: list[Callable[[], None]] = []
        self._lease = lease
        self._on_lost = on_lost
        self._until = claimed_at + TTL_SECONDS - _MARGIN_SECONDS
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="keeping the lease")

    def subscribe(self, *, certain: Callable[[], None]) -> None:
        """Have a function called whenever the lease is certain again."""
        self._on_certain.append(certain)

    def certain(self) -> bool:
        """Return whether no other controller can have taken over yet."""
        return _since_boot() < self._until

    async def successors(self) -> Sequence[str]:
        """Return the controllers that wait now, for people. Empty if that cannot be read."""
        try:
            async with asyncio.timeout(TTL_SECONDS):
                self.waiting = await self._lease.others()
        except (Fault, TimeoutError) as error:
            log.warning("nobody knows whether another controller waits: %s", error)
            self.waiting = ()
        return self.waiting

    def described(self) -> dict[str, object]:
        """Describe it, for people."""
        return {"epoch": self.epoch, "certain": self.certain(), "waiting": list(self.waiting)}

    def may_place(self) -> bool:
        """Return whether requests may get a place on a runner.

        Whoever is alone serves on while the database is away: nobody can take over.
        """
        return not self.waiting or self.certain()

    async def close(self) -> None:
        """Give the lease back; whoever waits takes over at once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(TTL_SECONDS):
                await self._lease.release(self.epoch)
        except (Fault, TimeoutError) as error:
            log.warning("the lease of the database could not be given back, and ends by itself: %s", error)

    async def _keep(self) -> None:
        trouble = ""
        while True:
            await asyncio.sleep(RENEW_SECONDS if not trouble else LOOK_SECONDS)
            sent_at = _since_boot()
            try:
                async with asyncio.timeout(TTL_SECONDS):
                    held = await self._lease.renew(self.epoch)
                    self.waiting = await self._lease.others() if held else ()
            except (Fault, TimeoutError) as error:
                if not trouble:
                    log.warning("the lease of the database cannot be renewed: %s", error)
                trouble = str(error) or "it does not answer"
                continue
            if not held:
                break
            was_certain, self._until = self.certain(), sent_at + TTL_SECONDS - _MARGIN_SECONDS
            if trouble:
                log.warning("the lease of the database is renewed again")
                trouble = ""
            if not was_certain:
                for call in self._on_certain:
                    call()
        self._until = 0.0
        log.error("another controller has taken the database over: this one ends what it had")
        await self._on_lost()


async def own(
    *,
    state: StateDir,
    settings: Settings,
    addresses: Addresses,
    stop: asyncio.Event,
    waits: Callable[[LeaseState | None], Awaitable[None]],
    on_lost: Callable[[], Awaitable[None]],
) -> tuple[OwnerLease, Ownership | None]:
    """Claim the lease of the PostgreSQL database, once nobody else has it.

    Args:
        stop: ends the wait.
        waits: called when this controller begins to wait, and when it waits for another one.
        on_lost: see `Ownership`.

    Returns:
        The lease, which the caller closes last, and what keeps it; None if `stop` was set first.

    Raises:
        FailedPrecondition: another controller has it, and this one is not to wait.
        Unavailable: the database or the master key cannot be used.
    """
    url = settings.database or ""
    me = Contender(
        directory=directory_id(state),
        machine=socket.gethostname(),
        address=peer_address(settings, addresses.port),
        version=VERSION,
    )
    vault = AesVault(load_master_key(state.root, os.environ))
    lease = OwnerLease(url, me)
    try:
        return lease, await _claimed(lease, url, vault, me, state, settings, stop, waits, on_lost)
    except BaseException:
        await lease.close()
        raise


async def _claimed(
    lease: OwnerLease,
    url: str,
    vault: AesVault,
    me: Contender,
    state: StateDir,
    settings: Settings,
    stop: asyncio.Event,
    waits: Callable[[LeaseState | None], Awaitable[None]],
    on_lost: Callable[[], Awaitable[None]],
) -> Ownership | None:
    known: LeaseState | None = None
    waited = checked = False
    trouble = ""
    while not stop.is_set():
        try:
            found = await lease.state()
            if found is None:
                await (await open_store(url, vault)).close()  # the migrations of this version
                continue
            if not settings.standby and not found.open_to(me.directory):
                raise FailedPrecondition(
                    f"another controller uses this database, on {found.machine} at {found.address} (if it has just "
                    f"died, for {found.left_seconds:.0f} more seconds): stop it, give this one a database of its own, "
                    "or let it wait for the other with --standby"
                )
            if not checked:
                async with sealed_settings(url, vault) as sealed:
                    await check_content(state, settings.content, sealed)
                    await SharedSecrets(sealed).restore(state)
                checked = True
            if found.open_to(me.directory):
                _check_version(found)
                sent_at = _since_boot()
                epoch = await lease.claim(found)
                if epoch is None:
                    continue
                return Ownership(lease, epoch, sent_at, on_lost)
            await lease.note()
        except (FailedPrecondition, Unavailable) as fault:
            if not settings.standby or (not waited and isinstance(fault, Unavailable)):
                raise
            if fault.message != trouble:
                log.warning("%s", fault.message)
            trouble, found = fault.message, known
        if not waited or (found is not None and (known is None or found.epoch != known.epoch)):
            waited, known = True, found
            await waits(found)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
    await lease.leave()
    return None


def _check_version(found: LeaseState) -> None:
    if found.newer:
        raise Unavailable(
            "a newer version of fal-grpc has used this database, so that this controller cannot take it over: stop "
            "it, install that version or a later one, and start it again"
        )


def peer_address(settings: Settings, port: int) -> str:
    """Return where other controllers reach this one. It is its own address, not a name that leads to several."""
    host = settings.host if settings.listens_on_one else socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
