"""An app that pins what serves it runs with what it pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.controller import Controller

SOURCE = """
import fal
from pydantic import BaseModel, validator

class Input(BaseModel):
    text: str

    @validator("text")
    def short(cls, value):
        if len(value) > 5:
            raise ValueError("too long")
        return value

class App(fal.App, name="{name}"):
    machine_type = "XS"
    app_auth = "public"
    requirements = ["{package}=={version}"]

    @fal.endpoint("/")
    def run(self, given: Input) -> dict[str, str]:
        from importlib.metadata import version

        return {{"text": given.text, "version": version("{package}")}}
"""


@pytest.mark.parametrize(("package", "version"), [("pydantic", "1.10.18"), ("fastapi", "0.100.0")])
def test_an_app_with_an_old_one_of_what_serves_it(
    controller: Controller, tmp_path: Path, package: str, version: str
) -> None:
    name = f"old-{package}"
    source = tmp_path / "app.py"
    source.write_text(SOURCE.format(name=name, package=package, version=version))
    controller.fal("deploy", str(source))
    answer = controller.call(f"/local/{name}/", {"text": "hi"})
    assert (answer.status, answer.json()) == (200, {"text": "hi", "version": version})
    refused = controller.call(f"/local/{name}/", {"text": "much too long"})
    assert (refused.status, "too long" in refused.json()["detail"][0]["msg"]) == (422, True)
