"""An app as users of the published package write it. It has a model, a setup, several paths, and a stream."""

import asyncio
import json
import os
import sys

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import fal
from fal.exceptions import RequestCancelledException


class Input(BaseModel):
    text: str = "nothing"


class Output(BaseModel):
    text: str
    greeting: str


class TinyApp(fal.App, keep_alive=120, max_concurrency=2):
    machine_type = "XS"
    requirements = ["humanize==4.11.0"]  # noqa: RUF012

    async def setup(self):
        self.greeting = os.environ.get("INTEROP_GREETING", "hello")
        self.asleep = {}
        print("setup is done [here]")

    @fal.endpoint("/")
    def echo(self, request: Input) -> Output:
        import humanize

        print(f"echo {request.text}")
        print("to the error stream", file=sys.stderr)
        return Output(text=request.text + humanize.ordinal(1), greeting=self.greeting)

    @fal.endpoint("/slow")
    async def slow(self, request: Input, about: Request) -> Output:
        self.asleep[about.headers["x-fal-request-id"]] = asyncio.create_task(asyncio.sleep(3600))
        try:
            await self.asleep[about.headers["x-fal-request-id"]]
        except asyncio.CancelledError:
            raise RequestCancelledException("stopped as you asked") from None
        return Output(text=request.text, greeting=self.greeting)

    @fal.endpoint("/slow/cancel")
    async def cancel_slow(self, about: Request) -> None:
        self.asleep[about.headers["x-fal-request-id"]].cancel()

    @fal.endpoint("/deaf")
    async def deaf(self, request: Input) -> Output:
        await asyncio.sleep(1)
        return Output(text=request.text, greeting=self.greeting)

    @fal.endpoint("/stream")
    async def stream(self, request: Input) -> StreamingResponse:
        async def events():
            for number in range(3):
                yield f"data: {json.dumps({'number': number, 'text': request.text})}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.realtime("/realtime")
    async def realtime(self, request: Input) -> Output:
        return Output(text=request.text.upper(), greeting=self.greeting)
