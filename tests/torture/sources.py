"""The apps under torture: one small deterministic program in many revisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SOURCE = """
import os
import sys
import threading
import time

from pydantic import BaseModel

import fal


class Ask(BaseModel):
    tag: str
    pause: float = 0
    crash: bool = False


class Tortured(
    fal.App, name="{name}", keep_alive=3, max_concurrency={most}, max_multiplexing={multiplexing}, startup_timeout=60
):
    machine_type = "XS"
    app_auth = "public"
    termination_grace_period_seconds = 2

    def setup(self) -> None:
        if {fails}:
            raise RuntimeError("planted: this revision cannot start")

    @fal.endpoint("/")
    def run(self, request: Ask) -> dict:
        sys.stdout.write(f"begin {{request.tag}}\\n")
        sys.stdout.flush()
        if request.pause:
            threading.Event().wait(request.pause)
        if request.crash:
            os._exit(9)
        return {{"tag": request.tag, "runner": os.environ["FAL_RUNNER_ID"], "revision": {revision}}}
"""


@dataclass(frozen=True, kw_only=True)
class AppKind:
    """An app. It has a maximum of runners, requests on each, seconds of a request, and the share that crashes it."""

    name: str
    most: int
    multiplexing: int
    pause: tuple[float, float] = (0.0, 0.0)
    crashes: float = 0.0


KINDS = (
    AppKind(name="echo", most=2, multiplexing=1),
    AppKind(name="wide", most=2, multiplexing=8, pause=(0.0, 0.3)),
    AppKind(name="sleepy", most=3, multiplexing=1, pause=(0.05, 0.6)),
    AppKind(name="crashy", most=2, multiplexing=2, pause=(0.0, 0.1), crashes=0.03),
)


def write(folder: Path, kind: AppKind, revision: int, *, fails: bool) -> Path:
    """Write a revision of an app to a file."""
    path = folder / f"{kind.name}_{revision}.py"
    text = _SOURCE.format(
        name=kind.name, most=kind.most, multiplexing=kind.multiplexing, fails=fails, revision=revision
    )
    path.write_text(text)
    return path
