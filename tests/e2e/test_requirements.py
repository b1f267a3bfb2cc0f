"""An app can pin the packages that serve it. It runs with those versions."""

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


@pytest.mark.parametrize(
    ("package", "version"), [("pydantic", "1.10.18"), ("pydantic", "1.9.2"), ("fastapi", "0.100.0")]
)
def test_an_app_with_an_old_one_of_what_serves_it(
    controller: Controller, tmp_path: Path, package: str, version: str
) -> None:
    name = f"old-{package}-{version.replace('.', '-')}"
    source = tmp_path / "app.py"
    source.write_text(SOURCE.format(name=name, package=package, version=version))
    controller.fal("deploy", str(source))
    answer = controller.call(f"/local/{name}/", {"text": "hi"})
    assert (answer.status, answer.json()) == (200, {"text": "hi", "version": version})
    refused = controller.call(f"/local/{name}/", {"text": "much too long"})
    assert (refused.status, "too long" in refused.json()["detail"][0]["msg"]) == (422, True)


def test_an_app_whose_requirements_leave_no_room_for_fastapi(controller: Controller, tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text(
        """
import fal

class App(fal.App, name="no-room"):
    machine_type = "XS"
    app_auth = "public"
    requirements = ["typing-extensions==4.5.0"]  # FastAPI with pydantic 2 needs a newer one

    @fal.endpoint("/")
    def run(self, numbers: list[int]) -> dict[str, int]:
        return {"sum": sum(numbers)}
"""
    )
    said = controller.fal("deploy", str(source))
    assert "served by the minimal server" in said.stderr
    answer = controller.call("/local/no-room/", [1, 2, 3])
    assert (answer.status, answer.json()) == (200, {"sum": 6})
    refused = controller.call("/local/no-room/", [1, "x"])
    assert (refused.status, refused.json()["detail"][0]["loc"]) == (422, ["body", 1])
