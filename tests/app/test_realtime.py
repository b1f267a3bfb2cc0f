"""Realtime sessions: input and output of each shape."""

from __future__ import annotations

import json

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

APP = """
from collections.abc import AsyncIterator, Iterator

import fal
from pydantic import BaseModel


class Input(BaseModel):
    n: int

    def can_batch(self, other, size):
        return True


class Output(BaseModel):
    n: int


class Sample(fal.App):
    @fal.realtime("/realtime")
    def double(self, request: Input) -> Output:
        if request.n < 0:
            raise ValueError("negative")
        return Output(n=2 * request.n)

    @fal.realtime("/impatient", session_timeout=0.01)
    async def impatient(self, request: Input) -> dict:
        return {"n": request.n}

    @fal.realtime("/count")
    async def count(self, request: Input) -> AsyncIterator[Output]:
        for n in range(request.n):
            yield Output(n=n)

    @fal.realtime("/count-sync")
    def count_sync(self, request: Input) -> Iterator[Output]:
        return iter([Output(n=n) for n in range(request.n)])

    @fal.realtime("/sum-two")
    async def sum_two(self, requests: AsyncIterator[Input]) -> Output:
        total = 0
        for _ in range(2):
            total += (await anext(requests)).n
        return Output(n=total)

    @fal.realtime("/both")
    async def both(self, requests: AsyncIterator[Input]) -> AsyncIterator[Output]:
        async for request in requests:
            if request.n == 0:
                return
            yield Output(n=-request.n)

    @fal.realtime(
        "/json",
        input_modal=None,
        encode_message=lambda value: __import__("json").dumps(value).encode(),
        decode_message=lambda content: __import__("json").loads(content),
    )
    def loose(self, request):
        return {"got": request}
"""


@pytest.fixture(scope="module")
def app(start_shared):
    return start_shared(APP)


def session(app, path):
    return connect(app.url.replace("http", "ws") + path)


def packed(value: object) -> bytes:
    data = msgpack.packb(value)
    assert data is not None
    return data


def ask(socket, value):
    socket.send(packed(value))
    return msgpack.unpackb(socket.recv(timeout=30))


def test_each_input_is_answered(app):
    with session(app, "/realtime") as socket:
        assert [ask(socket, {"n": n})["n"] for n in range(5)] == [0, 2, 4, 6, 8]
        socket.send(json.dumps({"n": 21}))  # text is JSON
        assert msgpack.unpackb(socket.recv(timeout=30)) == {"n": 42}


@pytest.mark.parametrize("value", [{"n": -1}, {"n": "no number"}])
def test_an_error_is_told_and_ends_the_session(app, value):
    with session(app, "/realtime") as socket:
        socket.send(packed(value))
        message = json.loads(socket.recv(timeout=30))
        assert (message["type"], message["error"]) == ("x-fal-error", "INTERNAL_ERROR")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
    with session(app, "/realtime") as socket:
        assert ask(socket, {"n": 1}) == {"n": 2}


def test_a_silent_session_is_ended(app):
    with session(app, "/impatient") as socket:
        assert json.loads(socket.recv(timeout=30))["error"] == "TIMEOUT"


@pytest.mark.parametrize("path", ["/count", "/count-sync"])
def test_one_input_many_outputs(app, path):
    with session(app, path) as socket:
        socket.send(packed({"n": 3}))
        assert [msgpack.unpackb(message)["n"] for message in socket] == [0, 1, 2]


def test_many_inputs_one_output(app):
    with session(app, "/sum-two") as socket:
        socket.send(packed({"n": 1}))
        assert ask(socket, {"n": 2}) == {"n": 3}


def test_many_inputs_many_outputs(app):
    with session(app, "/both") as socket:
        assert ask(socket, {"n": 1}) == {"n": -1}
        assert ask(socket, {"n": 2}) == {"n": -2}
        socket.send(packed({"n": 0}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_own_encoding(app):
    with session(app, "/json") as socket:
        socket.send(b'{"any": [1]}')
        assert json.loads(socket.recv(timeout=30)) == {"got": {"any": [1]}}


def test_description_has_the_shapes_and_the_types(app):
    paths = app.get("/openapi.json").json()["paths"]
    modes = {path: item["x-fal-protocol"]["realtimeMode"] for path, item in paths.items() if "x-fal-protocol" in item}
    assert modes == {
        "/both": "bidi",
        "/count": "server_streaming",
        "/count-sync": "server_streaming",
        "/impatient": "unary",
        "/json": "unary",
        "/realtime": "unary",
        "/sum-two": "client_streaming",
    }
    body = paths["/realtime"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Input"}
