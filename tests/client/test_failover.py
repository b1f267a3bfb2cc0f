"""Several controllers in one setting: calls go to one that answers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from fal.settings import find_target, load
from fal_grpc.aio import AsyncController
from fal_grpc.controller import Controller
from fal_grpc.errors import ConfigError
from fal_grpc.failover import choose
from fal_grpc.target import Target, parse_targets
from tests.client.support import HANG_SECONDS, KEY, FakeController, serving


@pytest.fixture
def nobody():
    """Return an address of which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    return f"127.0.0.1:{port}"


def chosen(text: str, tmp_path) -> Target:
    environ = {"FAL_HOST": text, "FAL_CONFIG_PATH": str(tmp_path / "config.toml")}
    return find_target(load(environ=environ), None, None, environ)[0]


def test_the_first_that_can_be_reached_is_called(fake, nobody, tmp_path):
    target = chosen(f"{nobody}, {fake.host}", tmp_path)
    assert target.authority == fake.host
    assert target.url == f"http://{fake.host}"
    assert str(target) == f"{fake.host}, {nobody}"
    with Controller(target, KEY) as controller:
        assert controller.list_runners() is not None
    assert chosen(f"{nobody},{nobody}", tmp_path).authority == nobody


def test_one_that_is_frozen_is_passed_over(fake, nobody):
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # the kernel accepts connections to it
        address = f"127.0.0.1:{frozen.getsockname()[1]}"
        assert choose(parse_targets(f"{address},{fake.host}")).authority == fake.host
        assert choose(parse_targets(f"https://{address},https://{nobody}")).authority == address


def test_an_open_client_goes_on_to_the_next(fake):
    with ExitStack() as first:
        before = first.enter_context(serving(FakeController()))
        with Controller(choose(parse_targets(f"{before.host},{fake.host}")), KEY) as controller:
            controller.list_runners()
            assert (len(before.calls), len(fake.calls)) == (1, 0)
            first.close()
            controller.list_runners()
            assert len(fake.calls) == 1


async def test_an_open_asyncio_client_goes_on_to_the_next(fake):
    with ExitStack() as first:
        before = first.enter_context(serving(FakeController()))
        target = choose(parse_targets(f"{before.host},{fake.host}"))
        async with asyncio.timeout(HANG_SECONDS), AsyncController(target, KEY) as controller:
            await controller.list_runners()
            await asyncio.to_thread(first.close)
            await controller.list_runners()
            assert len(fake.calls) == 1


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match="has addresses with TLS and others without"):
        parse_targets("http://127.0.0.1:1,https://box.example")
    with pytest.raises(ConfigError, match="is not an address"):
        parse_targets("127.0.0.1:1,")
