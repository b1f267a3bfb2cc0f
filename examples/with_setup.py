"""An app with its own packages and a secret. Each runner does some work only once.

Set the secret and deploy it:

    fal secrets set GREETING=Welcome
    fal deploy examples/with_setup.py

It is private, so call it with a key:

    curl RUN/ -H "Authorization: Key $FAL_KEY" -H 'Content-Type: application/json' -d '{"number": 1234567}'

RUN is the address that the deploy printed after "POST", without its last slash.
"""

import os
import time

from pydantic import BaseModel

import fal


class Input(BaseModel):
    number: int


class Output(BaseModel):
    text: str
    ready_seconds: float


class Numbers(fal.App, name="with-setup", keep_alive=300):
    machine_type = "S"
    requirements = ["humanize==4.11.0"]
    secrets = ["GREETING"]
    max_multiplexing = 4

    def setup(self) -> None:
        """Runs once, before the first request; load models here."""
        import humanize

        self.words = humanize.intword
        self.greeting = os.environ.get("GREETING", "Hello")
        self.ready_at = time.monotonic()
        print("ready to put numbers into words")

    def teardown(self) -> None:
        print("no more numbers")

    @fal.endpoint("/")
    def describe(self, request: Input) -> Output:
        return Output(
            text=f"{self.greeting}: {self.words(request.number)}",
            ready_seconds=round(time.monotonic() - self.ready_at, 3),
        )
