"""A head only waits for a body that follows at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fal.app.joined_head import JoinedHeadTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Plain(asyncio.Transport):
    """Keeps what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def close(self) -> None:
        self.done.append(b"closed")

    def is_closing(self) -> bool:
        return False


def both() -> tuple[Plain, Any]:
    plain = Plain()
    return plain, JoinedHeadTransport(cast("asyncio.Transport", plain))


@pytest.mark.parametrize("body", [b"ok", b"", bytearray(b"ok"), memoryview(b"ok")])
async def test_a_body_at_once_is_sent_with_its_head(body: bytes) -> None:
    plain, joined = both()
    joined.write(HEAD)
    joined.write(body)
    assert plain.done == [HEAD + bytes(body)]
    await asyncio.sleep(0)
    assert len(plain.done) == 1


async def test_a_head_without_a_body_is_sent_in_the_next_turn() -> None:
    plain, joined = both()
    joined.write(HEAD)
    assert plain.done == []
    await asyncio.sleep(0)
    assert plain.done == [HEAD]
    for part in (b"one", memoryview(b"two")):
        joined.write(part)
    assert plain.done == [HEAD, b"one", b"two"]


async def test_a_large_body_is_not_copied() -> None:
    plain, joined = both()
    large = b"x" * (16 * 1024 + 1)
    joined.write(HEAD)
    joined.write(large)
    assert plain.done == [HEAD, large]


async def test_a_close_comes_after_the_head() -> None:
    plain, joined = both()
    joined.write(HEAD)
    joined.close()
    await asyncio.sleep(0)
    assert plain.done == [HEAD, b"closed"]


async def test_each_of_two_answers_has_its_own_head() -> None:
    plain, joined = both()
    for _ in range(2):
        joined.write(HEAD)
        joined.write(b"ok")
    assert plain.done == [HEAD + b"ok"] * 2
