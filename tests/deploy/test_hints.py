"""The hints of a deploy: misspelt options, missing packages, failed builds."""

from __future__ import annotations

import logging
import sys

import pytest

from fal.deploy.errors import AppFileError
from fal.deploy.preparation import prepare
from fal.deploy.results import build_failure
from fal.deploy.serving import serving_requirements

APP = "import fal\n\nclass Shop(fal.App):\n{body}\n    @fal.endpoint('/')\n    def run(self) -> int: return 1\n"


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (
            "    machine_typ = 'XS'\n",
            "Shop.machine_typ is not an option and has no effect: did you mean 'machine_type'?",
        ),
        ("    requirement = ['numpy']\n", "did you mean 'requirements'?"),
        ("    keepalive = 60\n", "did you mean 'keep_alive'?"),
        ("    secret = ['A']\n", "did you mean 'secrets'?"),
        ("    image_size = 3\n    prompts = []\n    model = 'm'\n    max_tokens = 5\n    port = 1\n", None),
    ],
)
def test_a_misspelt_option_in_the_body_is_said(tmp_path, caplog, body, hint):
    (tmp_path / "app.py").write_text(APP.format(body=body))
    with caplog.at_level(logging.WARNING, logger="fal"):
        prepare(str(tmp_path / "app.py"))
    assert [hint in record.getMessage() for record in caplog.records] == ([] if hint is None else [True])


def test_what_is_missing_for_the_description_is_said_once(tmp_path, caplog, monkeypatch):
    for name in ("python_multipart", "multipart", "multipart.multipart"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "app.py").write_text(
        "import fal\nfrom fastapi import UploadFile\n\nclass Up(fal.App):\n    @fal.endpoint('/')\n"
        "    async def up(self, file: UploadFile) -> int: return 1\n"
    )
    with pytest.raises(AppFileError, match="python-multipart is not installed here, where the app is described"):
        prepare(str(tmp_path / "app.py"))
    assert not caplog.records


def test_a_failed_build_is_told_once_and_names_what_the_deploy_added(tmp_path):
    (tmp_path / "app.py").write_text(APP.format(body=""))
    app = prepare(str(tmp_path / "app.py"))
    pydantic = serving_requirements(realtime=False)[1]
    words = [f"Because you require {pydantic} and pydantic<2, your requirements are unsatisfiable."]
    shown, whole = str(build_failure(app, words, shown=True)), str(build_failure(app, words, shown=False))
    assert "unsatisfiable" not in shown
    assert "unsatisfiable" in whole
    assert f"added to your requirements by the deploy: {pydantic}" in shown
    assert "by the deploy" not in str(build_failure(app, ["no such package"], shown=True))
