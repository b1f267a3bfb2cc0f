"""One controller for each test process; tests use app names of their own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.controller import Controller, running


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """A whole controller, started once."""
    state_dir: Path = tmp_path_factory.mktemp("controller")
    with running(state_dir) as controller:
        yield controller
