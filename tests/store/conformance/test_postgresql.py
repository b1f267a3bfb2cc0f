"""PostgreSQL only: which controller may open it, and broken connections."""

from __future__ import annotations

import pytest

from fal_server.core.faults import FailedPrecondition, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.store import AesVault, open_store
from tests.store import strategies as some

VAULT = AesVault(bytes(range(32)))


@pytest.fixture
def name(tmp_path) -> str:
    return tmp_path.name


@pytest.fixture
def url(server, name) -> str:
    return server.make(name)


async def test_one_controller_at_a_time(url):
    first = await open_store(url, VAULT)
    with pytest.raises(FailedPrecondition, match="another controller uses"):
        await open_store(url, VAULT)
    await first.add_key(some.key("k"))
    await first.close()
    second = await open_store(url, VAULT)
    assert len(await second.list_keys(LOCAL)) == 1
    await second.close()


async def test_it_goes_on_when_all_connections_were_cut(url, server, name):
    store = await open_store(url, VAULT)
    await store.add_key(some.key("a"))
    await store.list_keys(LOCAL)
    assert server.cut(name) == 2, "one writes, and one reads"
    await store.add_key(some.key("b"))
    await store.add_key(some.key("c"))
    assert [key.key_id for key in await store.list_keys(LOCAL)] == ["a", "b", "c"]
    with pytest.raises(FailedPrecondition):  # the lock is held again
        await open_store(url, VAULT)
    await store.close()


async def test_one_that_lost_its_claim_writes_no_more(url, server, name):
    first = await open_store(url, VAULT)
    server.cut(name)
    second = await open_store(url, VAULT)
    with pytest.raises(FailedPrecondition, match="another controller uses"):
        await first.add_key(some.key("k"))
    assert await second.list_keys(LOCAL) == []
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/fal", "cannot be reached"),
        ("postgres://me:hunter2@127.0.0.1:1/fal", "cannot be reached"),
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/fal?sslmode=require", "cannot be reached"),
        ("postgresql://me:hunter2@127.0.0.1/fal?connections=3", "a parameter 'connections'"),
        ("mysql://me:hunter2@127.0.0.1/fal", "no store for mysql"),
    ],
)
async def test_a_wrong_url_is_told_without_its_password(wrong, words):
    with pytest.raises(Unavailable, match=words) as caught:
        await open_store(wrong, VAULT)
    assert "hunter2" not in str(caught.value)


async def test_a_database_that_is_not_there(server):
    with pytest.raises(Unavailable, match='database "nowhere" does not exist'):
        await open_store(server.url("nowhere"), VAULT)
