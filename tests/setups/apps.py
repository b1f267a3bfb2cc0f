"""The apps that the tests of this directory deploy."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from tests.setups.platform import LABEL, Platform
from tests.support.controller import Answer, Controller

_SOURCE = """
import os
from pathlib import Path

import fal
from fal.toolkit import File
from pydantic import BaseModel


class Asked(BaseModel):
    word: str = ""


class Answered(fal.App, name="{name}", keep_alive=300, min_concurrency={least}, max_concurrency=3, max_multiplexing=4):
    machine_type = "{label}"
    termination_grace_period_seconds = 1
    app_files = ["phrase.txt"]

    @fal.endpoint("/")
    def run(self, asked: Asked) -> dict:
        print("asked for", asked.word, flush=True)
        return dict(word=asked.word, runner=os.environ["FAL_RUNNER_ID"])

    @fal.endpoint("/brought")
    def brought(self) -> dict:
        return dict(phrase=Path("phrase.txt").read_text(), secret=os.environ.get("SETUPS_SECRET"))

    @fal.endpoint("/made")
    def made(self) -> File:
        return File.from_bytes(b"made by an app", file_name="made.txt")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """An app on a platform.

    Attributes:
        phrase: the content of the file that was deployed with it.
        secret: the value of the account's secret SETUPS_SECRET.
    """

    platform: Platform
    name: str
    phrase: str
    secret: str

    def ask(self, controller: Controller, word: str, path: str = "") -> Answer:
        """Call it through a controller."""
        answer = controller.call(f"/local/{self.name}{path}", {"word": word}, key=controller.key)
        assert answer.status == 200, answer.body
        return answer

    def runner(self) -> str:
        """Return the id of its only runner, which serves."""
        [runner] = self.platform.serving(self.name, 1)
        return runner["runner_id"]


def deploy(platform: Platform, name: str, directory: Path, *, least: int) -> Deployed:
    """Set the secret and deploy the app. The controller may have to pass this on.

    Args:
        least: how many runners it always has.
    """
    phrase, secret = secrets.token_hex(8), secrets.token_hex(8)
    (directory / "phrase.txt").write_text(phrase)
    source = directory / f"{name}.py"
    source.write_text(_SOURCE.format(name=name, least=least, label=LABEL))
    platform.other.fal("secrets", "set", "SETUPS_SECRET", stdin=secret.encode())
    platform.other.fal("deploy", str(source))
    return Deployed(platform=platform, name=name, phrase=phrase, secret=secret)
