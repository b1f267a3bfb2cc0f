"""A PostgreSQL server that refuses says what to do about it. It does not say what helps with a disk."""

from __future__ import annotations

import pytest

from fal_server.core.faults import Unavailable
from fal_server.store import AesVault, open_store
from tests.store.conformance.conftest import KEY


async def refused(place):
    """Open a store that its server refuses; return the message."""
    with pytest.raises(Unavailable) as caught:
        await open_store(place, AesVault(KEY))
    assert "its disk" not in caught.value.message
    return caught.value.message


async def test_a_database_that_does_not_exist(server):
    message = await refused(server.url("nosuch"))
    assert 'database "nosuch" does not exist' in message
    assert "`createdb NAME`" in message


async def test_a_user_that_does_not_exist(server, tmp_path):
    message = await refused(server.make(tmp_path.name).replace("//fal@", "//stranger@"))
    assert 'role "stranger" does not exist' in message
    assert "see to the user and the password" in message


async def test_a_user_without_the_right_to_create_tables(server, tmp_path):
    place = server.make(tmp_path.name)
    server.ask("drop role if exists guest; create role guest login")
    message = await refused(place.replace("//fal@", "//guest@"))
    assert "permission denied" in message
    assert "ALTER DATABASE" in message


async def test_a_server_that_is_not_there():
    assert "is its server up" in await refused("postgresql://fal@127.0.0.1:1/fal")
