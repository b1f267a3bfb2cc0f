"""Several controllers in one setting: calls go to one that answers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from fal.settings import find_target, load, resolve
from fal_grpc.aio import AsyncController
from fal_grpc.controller import Controller
from fal_grpc.errors import ConfigError, FalError
from fal_grpc.failover import choose
from fal_grpc.target import Target, parse_targets
from tests.client.support import HANG_SECONDS, KEY, FakeController, serving
from tests.support.certificates import Authority
from tests.support.controller import BIN


def chosen(text: str, tmp_path) -> Target:
    environ = {"FAL_HOST": text, "FAL_CONFIG_PATH": str(tmp_path / "config.toml")}
    return find_target(load(environ=environ), None, None, environ)[0]


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an address of which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    yield f"127.0.0.1:{port}"


@contextmanager
def frozen() -> Iterator[str]:
    """Yield an address of which the kernel accepts connections, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def dropping() -> Iterator[str]:
    """Yield an address whose packets are dropped. All connections that may wait there do so already."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def of_another_authority(tmp_path: Path) -> Iterator[str]:
    with serving(FakeController(), credentials_of(Authority(tmp_path, "another"), "theirs")) as other:
        yield f"https://{other.host}"


def credentials_of(authority: Authority, name: str) -> grpc.ServerCredentials:
    certificate, key = authority.issue(name, address="127.0.0.1")
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])


def environment(tmp_path: Path, hosts: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FAL_HOST": hosts, "FAL_KEY": "key-id:top-secret"}


def called(tmp_path: Path, environ: dict[str, str]) -> None:
    """Call by the SDK, blocking and asyncio, and by the command line."""
    settings = resolve(environ={**environ, "FAL_CONFIG_PATH": str(tmp_path / "config.toml")})
    with Controller(settings.target, KEY, settings.options) as controller:
        assert list(controller.list_runners()) == []

    async def ask() -> None:
        async with asyncio.timeout(HANG_SECONDS), AsyncController(settings.target, KEY, settings.options) as wire:
            assert list(await wire.list_runners()) == []

    asyncio.run(ask())
    done = subprocess.run(
        [str(BIN / "fal"), "runners", "list", "--json"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", [refusing, frozen, dropping])
def test_one_that_does_not_answer_is_passed_over(first, fake, tmp_path):
    with first() as silent, first() as also:
        called(tmp_path, environment(tmp_path, f"{silent},{also},{fake.host}"))
        target = choose(parse_targets(f"{silent},{fake.host}"))
        assert target.authority == fake.host
        # An open client whose controller became like that goes on to the other.
        (other,) = target.others
        with Controller(replace(other, others=(replace(target, others=()),)), KEY) as controller:
            assert list(controller.list_runners()) == []


@pytest.mark.parametrize("nobodys", ["a..b", f"{'a' * 64}.invalid", "nowhere.invalid", ".x"])
def test_a_name_that_no_host_can_have_is_passed_over(nobodys, fake):
    assert choose(parse_targets(f"http://{nobodys},http://{fake.host}")).authority == fake.host
    for scheme in ("http", "https"):
        target = choose(parse_targets(f"{scheme}://{nobodys}:1,{scheme}://{nobodys}:2"))
        with pytest.raises(FalError), Controller(target, KEY) as controller:
            controller.list_runners()


def test_one_with_a_wrong_certificate_is_passed_over(fake, tmp_path, monkeypatch):
    ours = Authority(tmp_path, "ours")
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.file))
    with of_another_authority(tmp_path) as wrong, serving(FakeController(), credentials_of(ours, "own")) as right:
        environ = {"SSL_CERT_FILE": str(ours.file)} | environment(tmp_path, f"{wrong},https://{right.host}")
        called(tmp_path, environ)
        assert len(right.calls) == 3
        called(tmp_path, environ | {"FAL_HOST": f"https://{right.host},{wrong}"})
        # Nobody else answers, so the call says what is wrong.
        with frozen() as silent:
            target = choose(parse_targets(f"https://{silent},{wrong}"), ours.file)
        assert f"https://{target.authority}" == wrong
        alone = replace(target, others=())
        with Controller(alone, KEY) as controller, pytest.raises(FalError, match=r"(?i)cert"):
            controller.list_runners()
        # One with TLS does not pass for one without.
        assert choose(parse_targets(f"http://{right.host},http://{fake.host}")).authority == fake.host


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


def test_the_first_that_can_be_reached_is_named_first(fake, tmp_path):
    with refusing() as nobody:
        target = chosen(f"{nobody}, {fake.host}", tmp_path)
        assert (target.authority, target.url) == (fake.host, f"http://{fake.host}")
        assert str(target) == f"{fake.host}, {nobody}"
        assert chosen(f"{nobody},{nobody}", tmp_path).authority == nobody


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match=r"means TLS for box\.example:443, and plaintext for 127\.0\.0\.1:1; write"):
        parse_targets("http://127.0.0.1:1,https://box.example")
    for text in ("127.0.0.1:1,", ",127.0.0.1:1", "a:1, ,b:1", ","):
        with pytest.raises(ConfigError, match=f"'{text}' has a comma too many"):
            parse_targets(text)
