"""Calls to webhook receivers: the request, and that redirects are not followed."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from socket import AF_INET
from typing import Any

import psutil
import pytest

from fal_server.core.outbound import OutboundCall
from fal_server.http.outbound.client import HttpOutboundClient
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.trust import trusting_context
from tests.support.certificates import Authority


@asynccontextmanager
async def receiver(answer: bytes):
    """Run a server that reads a request and answers with these bytes. Yield its port and the request."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        came.append(head + await reader.readexactly(2))
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)
LOOPBACK = Destinations([ipaddress.ip_network("127.0.0.0/8")])


async def post(port: int, *, host: str = "127.0.0.1", destinations: Destinations = LOOPBACK, **options: Any) -> int:
    client = HttpOutboundClient(destinations, **options)
    try:
        call = OutboundCall(url=f"http://{host}:{port}/hook?a=1", headers=(("x-mine", "1"),), body=b"{}")
        return (await client.post(call)).status
    finally:
        await client.close()


async def test_a_call_and_its_answer():
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, came):
        assert await post(port) == 204
    (request,) = came
    assert request.startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert b"x-mine: 1\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


async def test_a_name_is_resolved_in_threads_of_its_own():
    threads: list[str] = []

    class Noting(Destinations):
        def resolve(self, host: str, port: int) -> Sequence[str]:
            threads.append(threading.current_thread().name)
            return super().resolve(host, port)

    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, _):
        assert await post(port, destinations=Noting([ipaddress.ip_network("127.0.0.0/8")])) == 204
    assert threads[0].startswith("outbound")


async def test_a_redirect_is_an_answer():
    reply = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with receiver(reply) as (port, came):
        assert await post(port) == 302
    assert len(came) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), ("Fri, 01 Jan 1990 00:00:00 GMT", 0, 0), (format_datetime(IN_AN_HOUR, usegmt=True), 3000, 3600)],
    ids=["seconds", "past", "in an hour"],
)
async def test_the_receiver_says_how_long_to_wait(header, least, most):
    reply = f"HTTP/1.1 429 Too Many Requests\r\nretry-after: {header}\r\ncontent-length: 0\r\n\r\n"
    async with receiver(reply.encode()) as (port, _):
        client = HttpOutboundClient(LOOPBACK)
        call = OutboundCall(url=f"http://127.0.0.1:{port}/", headers=(), body=b"{}")
        receipt = await client.post(call)
        await client.close()
    assert receipt.status == 429
    assert receipt.retry_after_seconds is not None
    assert least <= receipt.retry_after_seconds <= most


@pytest.mark.parametrize("header", ["soon", "-1", "1.5", "9" * 30])
async def test_what_is_no_time_to_wait_is_ignored(header):
    reply = f"HTTP/1.1 503 Unavailable\r\nretry-after: {header}\r\ncontent-length: 0\r\n\r\n"
    async with receiver(reply.encode()) as (port, _):
        client = HttpOutboundClient(LOOPBACK)
        receipt = await client.post(OutboundCall(url=f"http://127.0.0.1:{port}/", headers=(), body=b"{}"))
        await client.close()
    assert receipt.retry_after_seconds is None


async def test_a_receiver_that_does_not_answer():
    async with receiver(b"") as (port, _):
        with pytest.raises(OSError, match="did not answer within"):
            await post(port, timeout_seconds=0.05)
    with pytest.raises(OSError, match="cannot be reached"):
        await post(port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b"])
async def test_a_name_without_an_address_is_named(host: str) -> None:
    with pytest.raises(OSError, match=f"{host} has no address: [A-Zn]"):
        await post(80, host=host)


async def test_closing_before_the_first_call():
    await HttpOutboundClient(LOOPBACK).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"])
async def test_this_machine_is_not_called(host):
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, came):
        with pytest.raises(OSError, match=r"the host .* leads to .*fal up --webhook-allow"):
            await post(port, host=host, destinations=Destinations())
    assert came == []


async def test_the_address_that_was_checked_is_called_by_the_name_of_the_url():
    """The name is resolved once. A second DNS answer, such as 127.0.0.1, is never used."""

    class Renamed(Destinations):
        def resolve(self, host, port):
            assert host == "receiver.example"
            return super().resolve("127.0.0.1", port)

    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, came):
        renamed = Renamed([ipaddress.ip_network("127.0.0.1")])
        assert await post(port, host="receiver.example", destinations=renamed) == 204
    assert f"\r\nhost: receiver.example:{port}\r\n".encode() in came[0].lower()


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("::7f00:1", False),
    ],
)
def test_private_addresses_are_not_called_in_any_form(address, permitted):
    assert Destinations().permits(ipaddress.ip_address(address)) is permitted


def test_allowed_networks_may_be_called_and_no_others():
    destinations = Destinations([ipaddress.ip_network("10.0.0.0/8")])
    assert destinations.permits(ipaddress.ip_address("10.1.2.3"))
    assert destinations.permits(ipaddress.ip_address("::ffff:10.1.2.3"))
    assert not destinations.permits(ipaddress.ip_address("192.168.0.1"))


def test_an_own_address_is_not_called_although_it_is_public():
    """This covers all addresses of this machine that are not private. The check works by binding."""
    from fal_server.http.outbound.destinations import _binds

    assert _binds(ipaddress.ip_address("127.0.0.1"))
    assert not _binds(ipaddress.ip_address("192.0.2.1"))
    found = [item.address for items in psutil.net_if_addrs().values() for item in items if item.family is AF_INET]
    assert found
    for own in map(ipaddress.ip_address, found):
        assert _binds(own)
        assert not Destinations().permits(own)


async def test_an_authority_of_this_machine_is_trusted(tmp_path):
    authority = Authority(tmp_path, "company")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("receiver", address="127.0.0.1"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        call = OutboundCall(url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", headers=(), body=b"{}")
        for files, taken in (((authority.file,), True), ((tmp_path / "absent.pem",), False)):
            client = HttpOutboundClient(LOOPBACK, trusted=partial(trusting_context, files))
            if taken:
                assert (await client.post(call)).status == 204
            else:
                with pytest.raises(OSError, match="certificate verify failed"):
                    await client.post(call)
            await client.close()


def test_a_damaged_file_of_authorities_leaves_the_public_ones(tmp_path):
    (tmp_path / "damaged.pem").write_text("not a certificate")
    assert len(trusting_context((tmp_path / "damaged.pem",)).get_ca_certs()) > 50


async def test_what_may_not_be_called_is_known_before():
    client = HttpOutboundClient(Destinations())
    assert "--webhook-allow" in await client.why_forbidden("127.0.0.1", 80)
    assert await client.why_forbidden("no-such-host.invalid", 80) == ""
    await client.close()
