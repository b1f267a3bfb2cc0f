"""An app that streams its answer as server-sent events.

Deploy it:

    fal deploy examples/stream.py --auth public

Watch it count, where RUN is the address that the deploy printed after "POST", without /stream:

    curl -N RUN/stream -H 'Content-Type: application/json' -d '{"until": 5}'
"""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import fal


class Input(BaseModel):
    until: int = Field(default=5, ge=1, le=1000)
    pause_seconds: float = Field(default=0.1, ge=0, le=10)


class Counter(fal.App, name="stream", keep_alive=60):
    machine_type = "XS"
    app_auth = "public"
    max_multiplexing = 10

    @fal.endpoint("/stream")
    async def count(self, request: Input) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for number in range(1, request.until + 1):
                yield f"data: {json.dumps({'number': number})}\n\n"
                await asyncio.sleep(request.pause_seconds)

        return StreamingResponse(events(), media_type="text/event-stream")
