"""An app for tests of calls. It answers, streams, fails, waits, and notices when its caller leaves."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import fal


class Number(BaseModel):
    number: int


class Square(BaseModel):
    square: int


class Waiting(BaseModel):
    started: str
    gone: str


def note(path: str) -> None:
    Path(path).touch()


class Api(fal.App, name="api", keep_alive=300):
    machine_type = "XS"
    max_concurrency = 1
    max_multiplexing = 10

    @fal.endpoint("/")
    def echo(self, request: dict) -> dict:
        print("echoing")
        return {"got": request}

    @fal.endpoint("/square")
    def square(self, request: Number) -> Square:
        return Square(square=request.number**2)

    @fal.endpoint("/picture")
    def picture(self) -> Response:
        return Response(b"\x89PNG\xff\x00", media_type="image/png")

    @fal.endpoint("/stream")
    async def stream(self, request: Number) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for number in range(request.number):
                yield f'data: {{"number": {number}}}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")

    def setup(self) -> None:
        self.cancelled: dict[str, asyncio.Event] = {}

    @fal.endpoint("/wait")
    async def wait(self, asked: Waiting, request: Request) -> dict:
        """Wait until the call is cancelled, and record it."""
        cancelled = self.cancelled.setdefault(request.headers["x-fal-request-id"], asyncio.Event())
        note(asked.started)
        await cancelled.wait()
        note(asked.gone)
        return {}

    @fal.endpoint("/wait/cancel")
    async def cancel_wait(self, request: Request) -> None:
        self.cancelled.setdefault(request.headers["x-fal-request-id"], asyncio.Event()).set()

    @fal.endpoint("/take")
    async def take(self, request: Request) -> dict:
        """Count a body as it arrives."""
        size = 0
        async for part in request.stream():
            size += len(part)
        return {"size": size}

    @fal.realtime("/realtime")
    def square_each(self, request: Number) -> Square:
        return Square(square=request.number**2)

    @fal.endpoint("/exit")
    def exit(self) -> None:
        os._exit(3)
