"""An endpoint that declares billing data, and sends it in a header."""

import fal
from fastapi import Response
from pydantic import BaseModel


class Input(BaseModel):
    seconds: float = 1.5


class Seconds:
    def declaration(self):
        report = {"type": "object", "properties": {"seconds": {"type": "number"}}}
        return {"version": 1, "schema_id": "seconds-1", "app": report}


class Billed(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.endpoint("/", billing=Seconds())
    def work(self, input: Input, response: Response) -> dict:
        response.headers["x-fal-billable-units"] = str(input.seconds)
        return {"worked": input.seconds}
