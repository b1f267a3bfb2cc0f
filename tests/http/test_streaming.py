"""Bodies of any size in both directions. They go at the slower side's pace, and sides may disconnect."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct

import pytest

from fal_server.core.routing import Outcome
from tests.http.support import App, Reader, Writer, read_chunks, read_head, read_message, runner, running_server

MEGABYTE = bytes(range(256)) * 4096
TOTAL = 50
# The most that our buffers and the kernel's for three connections hold, far less than the whole body.
IN_BETWEEN = 24 * len(MEGABYTE)


async def write_until_blocked(writer: Writer, parts: int, *, chunked: bool) -> int:
    """Write until the other side accepts no more for a while. Return the number of bytes."""
    written = 0
    for _ in range(parts):
        writer.write(b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE) if chunked else MEGABYTE)
        written += len(MEGABYTE)
        try:
            async with asyncio.timeout(0.5):
                await writer.drain()
        except TimeoutError:
            return written
    return written


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_goes_at_the_apps_pace(chunked: bool) -> None:
    go_on = asyncio.Event()

    async def lazy(reader: Reader, writer: Writer) -> None:
        _, fields = await read_head(reader)
        await go_on.wait()
        digest, size = hashlib.sha256(), 0
        if b"content-length" in fields:
            while size < int(fields[b"content-length"]):
                part = await reader.read(2**18)
                assert part
                digest.update(part)
                size += len(part)
        else:
            async for part in read_chunks(reader):
                digest.update(part)
                size += len(part)
        answer = f"{size} {digest.hexdigest()}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    async with running_server() as h, runner(lazy) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (TOTAL * len(MEGABYTE))
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        written = await write_until_blocked(writer, TOTAL, chunked=chunked)
        assert written < IN_BETWEEN
        go_on.set()
        for _ in range(TOTAL - written // len(MEGABYTE)):
            writer.write(b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE) if chunked else MEGABYTE)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        _, _, answer = await read_message(reader)
        assert answer.decode() == f"{TOTAL * len(MEGABYTE)} {hashlib.sha256(MEGABYTE * TOTAL).hexdigest()}"
        assert await h.ledger.ended() == [Outcome.DONE]


async def test_an_upload_waits_for_a_runner_without_being_kept_in_memory() -> None:
    async def taking(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        for _ in range(TOTAL):
            await reader.readexactly(len(MEGABYTE))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with running_server() as h, runner(taking) as port:
        h.ledger.add(App("hello"), None)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (TOTAL * len(MEGABYTE)))
        written = await write_until_blocked(writer, TOTAL, chunked=False)
        assert written < IN_BETWEEN
        h.ledger.place("hello", port)
        for _ in range(TOTAL - written // len(MEGABYTE)):
            writer.write(MEGABYTE)
            await writer.drain()
        assert (await read_head(reader))[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_download_goes_at_the_clients_pace(framing: str) -> None:
    blocked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def eager(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        chunked = framing == "chunked"
        field = {
            "length": b"Content-Length: %d\r\n" % (TOTAL * len(MEGABYTE)),
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
        }
        writer.write(b"HTTP/1.1 200 OK\r\n" + field[framing] + b"\r\n")
        written = await write_until_blocked(writer, TOTAL, chunked=chunked)
        blocked.set_result(written)
        for _ in range(TOTAL - written // len(MEGABYTE)):
            writer.write(b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE) if chunked else MEGABYTE)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with running_server() as h, runner(eager) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await blocked < IN_BETWEEN
        _, fields = await read_head(reader)
        digest, size = hashlib.sha256(), 0
        if framing == "length":
            while size < int(fields[b"content-length"]):
                part = await reader.read(2**18)
                digest.update(part)
                size += len(part)
        else:
            async for part in read_chunks(reader):
                digest.update(part)
                size += len(part)
        assert (size, digest.digest()) == (TOTAL * len(MEGABYTE), hashlib.sha256(MEGABYTE * TOTAL).digest())
        assert await h.ledger.ended() == [Outcome.DONE]
        # The connection can be used again.
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[2] == b"/x|"


async def test_events_arrive_as_they_are_sent() -> None:
    seen = asyncio.Event()

    async def events(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await seen.wait()
        for number in range(3):
            seen.clear()
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await seen.wait()  # the next only after this one has arrived
        writer.write(b"0\r\n\r\n")

    async with running_server() as h, runner(events) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        _, fields = await read_head(reader)
        assert fields[b"content-type"] == b"text/event-stream"
        seen.set()
        got = []
        async for part in read_chunks(reader):
            got.append(part)
            seen.set()
        assert got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_both_directions_at_once() -> None:
    async def mirror(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for part in read_chunks(reader):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        writer.write(b"0\r\n\r\n")

    async with running_server() as h, runner(mirror) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await read_head(reader))[0] == b"HTTP/1.1 200 OK"
        back = read_chunks(reader)
        for word in (b"one", b"two", b"three"):
            writer.write(b"%x\r\n%b\r\n" % (len(word), word))
            assert await anext(back) == word
        writer.write(b"0\r\n\r\n")
        assert [part async for part in back] == []
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[2] == b"/x|"


async def test_an_app_that_answers_before_it_has_read_all() -> None:
    async def rejecting(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()

    async with running_server() as h, runner(rejecting) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(2**16))
        first, _, body = await read_message(reader)
        assert (first, body) == (b"HTTP/1.1 413 Too Large", b"no")
        assert await h.ledger.ended() == [Outcome.DONE]


# A side disconnects.


@pytest.mark.parametrize("after_head", [False, True])
async def test_a_client_that_leaves_is_seen_by_the_app(after_head: bool) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def waiting(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        if after_head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        asked.set()
        assert await reader.read() == b""
        left.set()

    async with running_server() as h, runner(waiting) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        if after_head:
            await read_head(reader)
        await asked.wait()
        writer.close()
        await left.wait()
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]
        await h.ledger.until(lambda: h.ledger.told)
        assert h.ledger.told == [(h.ledger.asked[0]["request_id"], "/")]


async def test_a_client_that_leaves_in_the_middle_of_an_upload() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def waiting(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        assert await reader.readexactly(2**16) == bytes(2**16)
        asked.set()
        assert await reader.read() == b""
        left.set()

    async with running_server() as h, runner(waiting) as port:
        h.ledger.add(App("hello"), port)
        _, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(2**16))
        await asked.wait()
        writer.close()
        await left.wait()
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]
        assert not h.ledger.told, "the app sees that it never gets the whole request"


@pytest.mark.parametrize(
    ("started", "then"),
    [
        (b"Content-Length: 10\r\n\r\nabc", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"nonsense\r\n"),
    ],
)
async def test_a_runner_that_breaks_off_in_the_body_leaves_no_whole_looking_answer(started: bytes, then: bytes) -> None:
    more = asyncio.Event()

    async def breaking(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + started)
        await writer.drain()
        await more.wait()
        writer.write(then)

    async with running_server() as h, runner(breaking) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_head(reader)
        more.set()
        try:
            rest = await reader.read()
        except ConnectionError:
            rest = b""
        assert not rest.endswith(b"0\r\n\r\n")
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]


async def test_a_request_that_takes_too_long_in_the_body() -> None:
    async def endless(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert await reader.read() == b""

    async with running_server() as h, runner(endless) as port:
        h.ledger.add(App("hello", request_timeout=0.1), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_head(reader)
        try:
            rest = await reader.read()
        except ConnectionError:
            rest = b""
        assert rest in (b"", b"3\r\nabc\r\n")
        assert await h.ledger.ended() == [Outcome.TIMED_OUT]


async def test_a_client_that_is_reset_while_its_upload_is_paused() -> None:
    """Then neither the app nor the gateway reads any of it."""
    left = asyncio.Event()

    async def lazy(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await left.wait()

    async with running_server() as h, runner(lazy) as port:
        h.ledger.add(App("hello"), port)
        _, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (TOTAL * len(MEGABYTE)))
        assert await write_until_blocked(writer, TOTAL, chunked=False) < IN_BETWEEN
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]
        left.set()


async def test_pausing_and_resuming_many_times() -> None:
    async def slow(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        for _ in range(TOTAL):
            await reader.readexactly(len(MEGABYTE))
            await asyncio.to_thread(hashlib.sha256, MEGABYTE)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with running_server() as h, runner(slow) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (TOTAL * len(MEGABYTE)))
        for _ in range(TOTAL):
            writer.write(MEGABYTE)
            await writer.drain()
        first, _, _ = await read_message(reader)
        assert first == b"HTTP/1.1 200 OK"
        assert await h.ledger.ended() == [Outcome.DONE]
