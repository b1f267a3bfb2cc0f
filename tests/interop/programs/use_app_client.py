"""Runs an app during a block, and calls its endpoints by name."""

from functools import partial

from pydantic import BaseModel

import fal
from fal.app import AppClient, AppClientError
from fal.exceptions import FieldException

say = partial(print, ">")  # the test compares these lines alone


class Input(BaseModel):
    text: str = ""


class Output(BaseModel):
    said: str


class Talker(fal.App, keep_alive=60):
    machine_type = "XS"

    def setup(self):
        self.prefix = "I say "

    @fal.endpoint("/")
    def say(self, input: Input) -> Output:
        return Output(said=self.prefix + input.text)

    @fal.endpoint("/refuse")
    def refuse(self, input: Input) -> Output:
        raise FieldException("text", "is not allowed")


if __name__ == "__main__":
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()), AppClient.connect(Talker, startup_timeout=120) as client:
        seen = [client.say(Input(text="hello")), client.say({"text": "again"}), client.health()]
        try:
            client.refuse(Input(text="no"))
        except AppClientError as error:
            seen += [type(error).__name__, error.status_code, "is not allowed" in error.message]
    say(seen)
