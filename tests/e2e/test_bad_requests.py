"""More than two hundred bad requests go to a whole controller. Each has its status, and none leaves a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import psutil
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fal.api import SyncServerlessClient
from fal_server.grpc.methods import SERVICES
from tests.grpc.bad_requests import BAD
from tests.grpc.calls import answers
from tests.support.controller import ROOT, Controller

METHODS = {method.name: method for service in SERVICES for method in service.methods}
INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
STRANGER, UNKNOWN = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED
Metadata = tuple[tuple[str, str | bytes], ...]

# Raw bytes: neither gRPC nor HTTP, or incomplete HTTP.
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    b"PRI * HTTP/2.0\r\n\r\nXX",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET\r\n\r\n",
    b"\0" * 1000,
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad request and the status that it must have."""

    method: MethodDescriptor
    data: bytes
    metadata: Metadata
    status: grpc.StatusCode
    second: bool


@pytest.fixture(scope="module")
def small_key(controller: Controller) -> Iterator[tuple[str, str]]:
    """Create a key that may only call apps."""
    with SyncServerlessClient(host=controller.host, api_key=controller.key) as client:
        key_id, secret = client.keys.create(scope="api", description="bad requests")
        yield key_id, secret
        client.keys.revoke(key_id)


@pytest.fixture(scope="module")
def hello(controller: Controller) -> None:
    """Deploy the app that some requests of the table would change."""
    controller.fal("deploy", str(ROOT / "examples" / "hello.py"))


def credentials(key_id: str, secret: str) -> Metadata:
    return (("auth-key-id", key_id), ("auth-key", secret))


def cases(controller: Controller, small: tuple[str, str]) -> Iterator[Case]:
    """Return every method with every kind of wrong key and with garbage. Return the table of bad messages, too."""
    key_id, _, secret = controller.key.partition(":")
    good = credentials(key_id, secret)
    for number, method in enumerate(METHODS.values()):
        second = number % 2 == 0
        empty = GetMessageClass(method.input_type)().SerializeToString()
        strangers: tuple[Metadata, ...] = (
            (),
            (("auth-key", secret),),
            credentials(key_id, secret[:-1] + "?"),
            credentials("nobody", secret),
            credentials(key_id, "x" * 5000),
            (("authorization", "Bearer " + "e" * 3000),),
        )
        for metadata in strangers:
            yield Case(method=method, data=empty, metadata=metadata, status=STRANGER, second=second)
        nonsense = UNKNOWN if method.name == "InteractiveRun" else INVALID  # refused before its messages are read
        yield Case(method=method, data=b"\xff\xff\xff\x01", metadata=good, status=nonsense, second=second)
        if method.name != "GetCaller":  # which every key may call
            yield Case(method=method, data=empty, metadata=credentials(*small), status=DENIED, second=second)
    for number, (name, message, status, _) in enumerate(BAD):
        data = message.SerializeToString()
        yield Case(method=METHODS[name], data=data, metadata=good, status=status, second=number % 2 == 0)


async def refused(channel: grpc.aio.Channel, case: Case) -> str:
    """Return the fault of the answer to a bad request, or ""."""
    try:
        await answers(channel, case.method, case.data, case.metadata, second=case.second)
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if error.code() is case.status and 0 < len(details) < 2100 and "Traceback" not in details:
            return ""
        return f"{case.method.name} {case.data[:60]!r}: {error.code()} {details[:200]}, not {case.status}"
    return f"{case.method.name} {case.data[:60]!r} was answered"


async def all_refused(channel: grpc.aio.Channel, wrong: list[Case]) -> list[str]:
    turns = asyncio.Semaphore(20)

    async def one(case: Case) -> str:
        async with turns:
            return await refused(channel, case)

    return [problem for problem in await asyncio.gather(*map(one, wrong)) if problem]


def environments(controller: Controller) -> list[str]:
    with SyncServerlessClient(host=controller.host, api_key=controller.key) as client:
        return [environment.name for environment in client.environments.list()]


@pytest.fixture
async def channel(controller: Controller) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to the shared port."""
    async with grpc.aio.insecure_channel(controller.host) as channel:
        yield channel


@pytest.mark.usefixtures("hello")
async def test_each_has_its_status_and_nothing_is_left_behind(
    controller: Controller, channel: grpc.aio.Channel, small_key: tuple[str, str]
) -> None:
    wrong = list(cases(controller, small_key))
    assert len(wrong) > 200
    there_before = environments(controller)
    process = psutil.Process(controller.process.pid)
    async with asyncio.timeout(120):
        assert not (problems := await all_refused(channel, wrong)), "\n".join(problems)
        before = process.memory_info().rss
        for _ in range(2):
            assert not (problems := await all_refused(channel, wrong)), "\n".join(problems)
    assert process.memory_info().rss < before + 32 * 2**20
    assert environments(controller) == there_before


async def test_what_is_not_there_is_unimplemented(controller: Controller, channel: grpc.aio.Channel) -> None:
    metadata = credentials(*controller.key.split(":"))
    for path in ("/fal.v1.Runners/Nothing", "/controller.IsolateController/", "/x.Y/Z", "/fal.v1.Shim/Stop"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"", metadata=metadata, timeout=60)
        assert caught.value.code() is UNKNOWN, path


async def test_noise_on_a_connection_ends_that_connection_alone(controller: Controller) -> None:
    for noise in NOISE:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", controller.port)
            try:
                writer.write(noise)
                writer.write_eof()
                answer = await reader.read()
            except ConnectionError:
                answer = b""
            writer.close()
        assert b" 200 " not in answer[:20], noise[:40]
        assert b"Traceback" not in answer
    assert controller.call("/health").status == 200
    assert controller.process.poll() is None
