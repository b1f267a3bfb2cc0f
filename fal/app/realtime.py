"""Realtime sessions: a method's inputs and outputs over a WebSocket."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import json
import traceback
import typing
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from fastapi import WebSocket, WebSocketDisconnect
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from fal.app.endpoints import FROM_ANNOTATIONS, Realtime

_ASYNC = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable)
_SYNC = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which side of a session streams, and its message types (None: unchecked)."""

    mode: str
    input_model: type | None
    output_model: type | None


def shape_of(method: Callable[..., object], how: Realtime) -> Shape:
    """Read a method's annotations: "unary", "server_streaming", "client_streaming" or "bidi"."""
    hints = typing.get_type_hints(method)
    names = [name for name in inspect.signature(method).parameters if name != "self"]
    incoming = hints.get(names[0]) if names else None
    outgoing = hints.get("return")
    streams_in, taken = _streamed(incoming, _ASYNC)
    streams_out, given = _streamed(outgoing, _ASYNC + _SYNC)
    mode = {(0, 0): "unary", (0, 1): "server_streaming", (1, 0): "client_streaming", (1, 1): "bidi"}
    return Shape(
        mode=mode[streams_in, streams_out],
        input_model=_model(how.input_modal, taken),
        output_model=_model(how.output_modal, given),
    )


def _streamed(annotation: object, kinds: tuple[type, ...]) -> tuple[bool, object]:
    """Return whether an annotation is an iterator, and its item type. For others, the type is the annotation itself."""
    origin = typing.get_origin(annotation) or annotation
    if origin not in kinds:
        return False, annotation
    arguments = typing.get_args(annotation)
    return True, arguments[0] if arguments else None


def _model(declared: object, annotated: object) -> type | None:
    chosen = annotated if declared == FROM_ANNOTATIONS else declared
    return chosen if isinstance(chosen, type) and chosen is not type(None) else None


def handler(method: Callable[..., object], how: Realtime) -> Callable[[WebSocket], Awaitable[None]]:
    """Return the WebSocket endpoint that serves a bound method."""
    session = _Session(method, how, shape_of(method, how))

    async def serve(websocket: WebSocket) -> None:
        await session.serve(websocket)

    return serve


class _Session:
    def __init__(self, method: Callable[..., object], how: Realtime, shape: Shape) -> None:
        self._method = method
        self._how = how
        self._shape = shape
        self._encode = how.encode_message or _pack
        self._decode = how.decode_message or _unpack

    async def serve(self, websocket: WebSocket) -> None:
        """Run one session. It ends if the client leaves, the method fails, or no input comes for too long."""
        await websocket.accept()
        notice: tuple[str, str] | None = None
        try:
            if self._shape.mode == "unary":
                await self._answer_each(websocket)
                notice = ("TIMEOUT", "no inputs, reconnect when needed!")
            else:
                await self._stream(websocket)
        except WebSocketDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the client gets a message, the log a traceback, the runner goes on
            traceback.print_exception(error)
            notice = ("INTERNAL_ERROR", str(error))
        with suppress(WebSocketDisconnect, RuntimeError):  # the client may have left
            if notice is not None:
                await websocket.send_json({"type": "x-fal-error", "error": notice[0], "reason": notice[1]})
            await websocket.close()

    async def _answer_each(self, websocket: WebSocket) -> None:
        waiting: deque[object] = deque(maxlen=self._how.buffering)
        changed = asyncio.Event()

        async def read() -> None:
            try:
                async for item in self._inputs(websocket):
                    waiting.append(item)
                    changed.set()
            finally:
                waiting_ended.set()
                changed.set()

        waiting_ended = asyncio.Event()
        reader = asyncio.create_task(read())
        try:
            while waiting or not waiting_ended.is_set():
                if not waiting:
                    changed.clear()
                    await changed.wait()
                    continue
                await self._send(websocket, await self._call(*self._batch(waiting)))
            await reader
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect):
                await reader

    def _batch(self, waiting: deque[object]) -> list[object]:
        batch = [waiting.popleft()]
        joins = getattr(batch[0], "can_batch", None)
        while waiting and len(batch) < self._how.max_batch_size:
            if joins is not None and not joins(waiting[0], len(batch)):
                break
            batch.append(waiting.popleft())
        return batch

    async def _stream(self, websocket: WebSocket) -> None:
        argument: object = self._inputs(websocket)
        if self._shape.mode == "server_streaming":
            try:
                argument = await anext(self._inputs(websocket))
            except StopAsyncIteration:
                return
        result = await self._call(argument)
        if self._shape.mode == "client_streaming":
            await self._send(websocket, result)
            return
        async for output in _outputs(result):
            await self._send(websocket, output)

    async def _call(self, *arguments: object) -> object:
        if inspect.isasyncgenfunction(self._method):
            return self._method(*arguments)
        if inspect.iscoroutinefunction(self._method):
            return await self._method(*arguments)
        return await run_in_threadpool(self._method, *arguments)

    async def _inputs(self, websocket: WebSocket) -> AsyncIterator[object]:
        """Yield a session's checked inputs until none arrives within its timeout."""
        while True:
            try:
                async with asyncio.timeout(self._how.session_timeout):
                    message = await websocket.receive()
            except TimeoutError:
                return
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            content = message.get("bytes")
            value: object = json.loads(message["text"]) if content is None else self._decode(content)
            model = self._shape.input_model
            if model is not None and model is not dict and isinstance(value, dict):
                value = model(**{str(name): item for name, item in value.items()})
            yield value

    async def _send(self, websocket: WebSocket, output: object) -> None:
        if not isinstance(output, dict):
            dump = getattr(output, "model_dump", None) or getattr(output, "dict", None)
            if dump is None:
                kind = type(output).__name__
                raise TypeError(f"a realtime endpoint returned {kind}: return a dict or a pydantic model")
            output = dump()
        await websocket.send_bytes(self._encode(output))


def _outputs(result: object) -> AsyncIterator[object]:
    if isinstance(result, AsyncIterator):
        return result
    if isinstance(result, Iterator):
        return iterate_in_threadpool(result)
    if isinstance(result, collections.abc.Iterable):
        return iterate_in_threadpool(iter(result))
    raise TypeError(f"a streaming realtime endpoint returned {type(result).__name__}: yield its outputs")


def _pack(value: object) -> bytes:
    import msgpack  # type: ignore[import-untyped]  # it has none

    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def _unpack(content: bytes) -> object:
    import msgpack

    return msgpack.unpackb(content, raw=False)
