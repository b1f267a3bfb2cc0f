"""Two functions: one served over HTTP, and one that runs once.

Serve the first, and call it, where RUN is the address that the deploy printed after "POST", without its last slash:

    fal deploy examples/function.py::shout --auth public
    curl RUN/ -H 'Content-Type: application/json' -d '{"text": "hello"}'

Run the second, in its own environment, and see its output:

    fal run examples/function.py::report
"""

from pydantic import BaseModel

import fal


class Input(BaseModel):
    text: str


class Output(BaseModel):
    text: str


@fal.function(machine_type="XS", requirements=[], serve=True)
def shout(request: Input) -> Output:
    return Output(text=request.text.upper() + "!")


@fal.function(machine_type="XS", requirements=["humanize==4.11.0"])
def report() -> str:
    import platform

    import humanize

    line = f"Python {platform.python_version()} counts to {humanize.intcomma(10**6)}"
    print(line)
    return line
