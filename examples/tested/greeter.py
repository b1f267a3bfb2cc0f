"""An app with tests beside it: `pytest examples/tested` runs them, with the extra `testing`.

Deploy it:

    fal deploy examples/tested/greeter.py --auth public

Call it, where RUN is the address that the deploy printed after "POST", without its last slash:

    curl RUN/ -H 'Content-Type: application/json' -d '{"name": "Ada"}'
"""

from pydantic import BaseModel

import fal


class Input(BaseModel):
    name: str


class Output(BaseModel):
    text: str
    greeted: int


class Greeter(fal.App, name="greeter", keep_alive=60):
    machine_type = "XS"
    requirements = ["humanize==4.11.0"]

    def setup(self) -> None:
        self.greeted = 0

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output:
        self.greeted += 1
        return Output(text=f"Hello, {request.name}!", greeted=self.greeted)

    @fal.endpoint("/count")
    def count(self) -> dict[str, str]:
        import humanize  # the requirements above install it in the runner

        return {"greeted": humanize.apnumber(self.greeted)}
