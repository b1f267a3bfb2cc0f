"""An app of several files, named in pyproject.toml."""

import fal
from helper_of_serve import loud
from pydantic import BaseModel


class Input(BaseModel):
    text: str = ""


class WithModules(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]
    local_python_modules = ["helper_of_serve"]

    @fal.endpoint("/")
    def work(self, input: Input) -> dict:
        return {"text": loud(input.text), "words": open("words.txt").read()}
