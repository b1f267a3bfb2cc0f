"""Sockets are bound before anything is built. All of a host's addresses have one port."""

from __future__ import annotations

import pytest

from fal_server.composition.addresses import bind_addresses
from fal_server.composition.settings import Settings, TlsSettings
from fal_server.core.accounts import Account
from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL, AppId
from fal_server.http.server.listener import bind


async def test_all_addresses_of_a_host_share_a_port() -> None:
    sockets = await bind("localhost", 0)
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
    finally:
        for bound in sockets:
            bound.close()


async def test_the_addresses_are_known_at_once() -> None:
    addresses = await bind_addresses(Settings(tls=TlsSettings(names=("box.example",))))
    for bound in addresses.sockets:
        bound.close()
    addresses.accounts.add(Account())
    hello = AppId.parse(LOCAL, "hello--dev")
    assert addresses.url == f"https://127.0.0.1:{addresses.port}"
    assert addresses.of_app(hello).ws == f"wss://127.0.0.1:{addresses.port}/local/hello--dev"
    assert addresses.of_app(hello).queue == f"https://127.0.0.1:{addresses.port}/queue/local/hello--dev"


async def test_a_port_that_is_taken_is_named() -> None:
    (taken,) = await bind("127.0.0.1", 0)
    taken.listen()
    port = taken.getsockname()[1]
    try:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be listened on.*--port 0"):
            await bind_addresses(Settings(port=port))
    finally:
        taken.close()
