"""The smallest app: one endpoint, open to everybody.

Deploy it:

    fal deploy examples/hello.py --auth public

Call it, where RUN is the address that the deploy printed after "POST", without its last slash:

    curl RUN/ -H 'Content-Type: application/json' -d '{"name": "Ada"}'
    curl RUN/health
"""

from pydantic import BaseModel, Field

import fal


class Input(BaseModel):
    name: str = Field(default="world", description="The name to greet.", examples=["Ada"])


class Output(BaseModel):
    message: str


class Hello(fal.App, name="hello", keep_alive=60):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output:
        return Output(message=f"Hello, {request.name}!")
