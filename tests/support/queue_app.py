"""An app for tests of the queue. It records requests, and waits or fails on request."""

import os
import select
from pathlib import Path

from fastapi import HTTPException, Request
from pydantic import BaseModel

import fal


class Asked(BaseModel):
    word: str
    notes: str
    gate: str | None = None
    status: int = 200


class Queued(fal.App, name="queued", keep_alive=300):
    machine_type = "XS"
    app_auth = "private"

    @fal.endpoint("/note")
    def note(self, asked: Asked, request: Request) -> dict[str, str | None]:
        """Record the request. Then wait for a file, or fail, as the request says."""
        with Path(asked.notes).open("a") as notes:
            print(asked.word, request.headers["x-fal-request-id"], os.getpid(), file=notes, flush=True)
        print("noted", asked.word, flush=True)
        while asked.gate is not None and not Path(asked.gate).exists():
            select.select([], [], [], 0.02)
        if asked.status != 200:
            raise HTTPException(asked.status, "as you asked")
        return {"word": asked.word, "authorization": request.headers.get("authorization")}
