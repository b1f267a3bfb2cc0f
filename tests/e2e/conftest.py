"""One controller for each test process; each test has its own app names."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.controller import Controller, running
from tests.support.rolled_app import Rollouts


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Run a whole controller, started once."""
    state_dir: Path = tmp_path_factory.mktemp("controller")
    with running(state_dir) as controller:
        yield controller


@pytest.fixture
def rollouts(controller: Controller, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rollouts]:
    """Return an app that belongs to the test."""
    made = Rollouts(controller, f"rolled-{abs(hash(request.node.name)) % 10**6}", tmp_path)
    with made.sdk:
        yield made
        made.controller.fal("apps", "delete", made.app)
