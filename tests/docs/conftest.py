"""The controller and the app that the pages use."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.controller import ROOT, Controller, running


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    with running(tmp_path_factory.mktemp("docs")) as controller:
        controller.fal("deploy", str(ROOT / "examples" / "hello.py"), "--auth", "public")
        assert controller.call("/local/hello", {"name": "docs"}).status == 200
        yield controller
