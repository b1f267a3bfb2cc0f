"""An app for tests of the gateway. It answers, streams, waits, disconnects and dies on request."""

import asyncio
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import fal

PART = bytes(range(256)) * 1024


class Instruction(BaseModel):
    status: int = 200
    headers: dict[str, str] = {}


class Held(BaseModel):
    entered: str
    gate: str
    counts: str = ""


def wait_at(gate: str) -> None:
    while not Path(gate).exists():
        select.select([], [], [], 0.01)


class Gateway(fal.App, name="gateway", keep_alive=300):
    machine_type = "XS"
    app_auth = "public"

    def setup(self) -> None:
        self.running: list[str] = []

    @fal.endpoint("/answer")
    def answer(self, request: Instruction) -> Response:
        """Answer as the query says."""
        return Response(b"as requested", request.status, request.headers)

    @fal.endpoint("/held")
    def held(self, request: Held) -> dict:
        """Wait for a file. Record this process, and the number of its requests."""
        self.running.append(request.entered)
        if request.counts:
            with Path(request.counts).open("a") as counts:
                print(os.getpid(), len(self.running), file=counts, flush=True)
        Path(request.entered).touch()
        wait_at(request.gate)
        self.running.remove(request.entered)
        return {"pid": os.getpid()}

    @fal.endpoint("/die")
    async def die(self) -> dict:
        """End the process without an answer."""
        os._exit(1)

    @fal.endpoint("/half")
    async def half(self) -> StreamingResponse:
        """Disconnect within the body."""

        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("as requested")

        return StreamingResponse(parts(), headers={"content-length": "8"})

    @fal.endpoint("/deaf")
    async def deaf(self, request: Instruction) -> Response:
        """Close the port, then answer."""
        import gc

        from uvicorn import Server

        for found in gc.get_objects():
            if isinstance(found, Server):
                for listening in found.servers:
                    listening.close()
        return Response(b"", request.status)

    @fal.endpoint("/give")
    async def give(self, request: Request) -> StreamingResponse:
        """Send the requested number of bytes, at the reader's speed."""
        left = int(request.query_params["bytes"])

        async def parts() -> AsyncIterator[bytes]:
            for at in range(0, left, len(PART)):
                yield PART[: left - at]

        return StreamingResponse(parts(), media_type="application/octet-stream")

    @fal.endpoint("/take")
    async def take(self, request: Request) -> dict:
        """Count a body as it arrives, once the gate is open."""
        if gate := request.query_params.get("gate"):
            await asyncio.to_thread(wait_at, gate)
        size = 0
        async for part in request.stream():
            size += len(part)
        return {"size": size}
