"""An app for conversations. It answers each message of a WebSocket with a message.

Deploy it:

    fal deploy examples/realtime.py --auth public

Talk to it, with a line of JSON for each message:

    echo '{"number": 4}' | fal api realtime --realtime

A plain call works, too, where RUN is the address that the deploy printed after "POST", without its last slash:

    curl RUN/ -H 'Content-Type: application/json' -d '{"number": 4}'

In Python, `fal_client.realtime("local/realtime")` talks to it.
"""

from pydantic import BaseModel

import fal


class Input(BaseModel):
    number: int


class Output(BaseModel):
    square: int


class Squares(fal.App, name="realtime", keep_alive=60):
    machine_type = "XS"
    app_auth = "public"
    max_multiplexing = 10

    @fal.realtime("/realtime")
    def square_each(self, request: Input) -> Output:
        return Output(square=request.number**2)

    @fal.endpoint("/")
    def square(self, request: Input) -> Output:
        return Output(square=request.number**2)
