"""PostgreSQL only: who of several controllers owns a database. The tests also cover what a former owner can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fal_server.core.faults import FailedPrecondition
from fal_server.store import AesVault, open_store
from fal_server.store.sql.lease import Contender, LeaseState, OwnerLease
from tests.store import strategies as some

VAULT = AesVault(bytes(range(32)))


def contender(name: str) -> Contender:
    return Contender(directory=name, machine=f"box-{name}", address=f"{name}.example:7400", version="1")


@pytest.fixture
def name(tmp_path) -> str:
    return tmp_path.name


@pytest.fixture
def url(server, name) -> str:
    return server.make(name)


@pytest_asyncio.fixture
async def leases(url) -> AsyncIterator[tuple[OwnerLease, OwnerLease]]:
    first = OwnerLease(url, contender("a"))
    assert await first.state() is None, "no migration has run"
    await (await open_store(url, VAULT)).close()
    second = OwnerLease(url, contender("b"))
    yield first, second
    await first.close()
    await second.close()


async def seen(lease: OwnerLease) -> LeaseState:
    found = await lease.state()
    assert found is not None
    return found


async def claimed(lease: OwnerLease) -> int:
    epoch = await lease.claim(await seen(lease))
    assert epoch is not None
    return epoch


def end(server, name) -> None:
    """Let the lease end, as if its owner had not renewed it."""
    server.ask("update epochs set expires_at = 0", name)


async def test_a_database_of_another_version_says_who_has_it(leases, server, name):
    first, second = leases
    await claimed(first)
    for version, newer in (("0026", False), ("9999", True)):
        server.ask(f"update alembic_version set version_num = '{version}'", name)
        found = await seen(second)
        assert (found.holder, found.newer) == ("a", newer)
    server.ask("update alembic_version set version_num = '0025'", name)
    assert await second.state() is None, "that version knew no lease"


async def test_of_several_one_has_it_until_it_gives_it_back(leases):
    first, second = leases
    free = await seen(first)
    assert free.open_to("a")
    assert free.open_to("b")
    tries = await asyncio.gather(first.claim(free), second.claim(free))
    assert sorted(tries, key=str) == [1, None]
    owner, other = (first, second) if tries[0] else (second, first)
    held = await seen(other)
    assert (held.epoch, held.address) == (1, f"{held.holder}.example:7400")
    assert 0 < held.left_seconds <= 5
    assert not held.open_to("c")
    assert held.open_to(held.holder), "a restart on its directory waits for nothing"
    assert await other.claim(held) is None
    await other.note()
    assert len(await owner.others()) == 1
    assert await owner.renew(1)
    assert not await other.renew(1)
    await owner.release(1)
    assert await claimed(other) == 2
    assert not await owner.renew(1)


async def test_a_former_owner_writes_nothing_more(leases, url, server, name):
    first, second = leases
    store = await open_store(url, VAULT, epoch=await claimed(first))
    await store.add_key(some.key("a"))
    end(server, name)
    assert await first.renew(1), "nobody has claimed it, so it is its own still"
    end(server, name)
    later = await open_store(url, VAULT, epoch=await claimed(second))
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=r"took this database over, with epoch 2: this one, of epoch 1"):
            await store.add_key(some.key("b"))
    await later.add_key(some.key("c"))
    await later.close()
    with pytest.raises(FailedPrecondition, match="took this database over"):
        await store.add_key(some.key("d"))  # the lock is free, and its epoch is over
    await store.close()


async def test_a_lease_of_nobody_cuts_no_connection(leases, url):
    first, _ = leases
    copying = await open_store(url, VAULT)
    await copying.add_key(some.key("a"))
    assert await claimed(first) == 1
    await copying.add_key(some.key("b"))
    await copying.close()
