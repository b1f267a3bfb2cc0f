"""App files in the style of published ones, run in containers. Both clients deploy them unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.controller import ROOT, Controller
from tests.support.official import Official

APPS = ROOT / "tests" / "interop" / "apps"
DEPLOYING = ROOT / "tests" / "interop" / "deploying.py"
PROJECT = APPS / "image"


@pytest.fixture(params=["ours", "theirs"])
def client(request: pytest.FixtureRequest, controller: Controller, tmp_path: Path) -> str:
    """Deploy with one client; return its name."""
    client = str(request.param)
    arguments = [str(DEPLOYING), client, str(APPS / "boxed_model.py")]
    arguments += [str(PROJECT / "as-it-is"), str(PROJECT / "from-a-dockerfile")]
    if client == "ours":
        subprocess.run([sys.executable, *arguments], env=controller.environment, check=True)
    else:
        python = Path(os.environ["FAL_INTEROP_PYTHON"]).absolute()  # `make test-containers` names it
        Official(python=python, home=tmp_path, host=controller.host, key=controller.key).run("python", *arguments)
    return client


def test_they_answer_as_they_were_deployed_by_either_client(controller: Controller, client: str) -> None:
    said = controller.call(f"/local/boxed-model-{client}/", {"text": "up"})
    assert (said.status, said.json()) == (200, {"said": "UP", "voice": "low"}), said.body
    refused = controller.call(f"/local/boxed-model-{client}/refused", {"text": "up"})
    assert (refused.status, refused.json()) == (
        422,
        {"detail": [{"loc": ["body", "text"], "msg": "cannot be said", "type": "value_error"}]},
    )
    plain = controller.call("/local/as-it-is/hostname-of-this-image")
    assert plain.status == 404
    assert b"no-index" in controller.call("/local/as-it-is/pip.conf").body
    assert controller.call("/local/from-a-dockerfile/page.html").body == b"a page\nbuilt\n"
    for app in ("as-it-is", "from-a-dockerfile", f"boxed-model-{client}"):
        controller.fal("apps", "delete", app, "--yes")
