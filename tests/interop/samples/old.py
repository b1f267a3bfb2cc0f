"""An app that each published client since 1.20 can deploy."""

from pydantic import BaseModel

import fal


class Input(BaseModel):
    text: str


class Output(BaseModel):
    text: str
    times: int


class OldApp(fal.App, keep_alive=60, max_concurrency=1):
    machine_type = "XS"

    def setup(self):
        self.times = 0

    @fal.endpoint("/")
    def echo(self, request: Input) -> Output:
        print("echo", request.text, flush=True)
        self.times += 1
        return Output(text=request.text, times=self.times)
