"""The platform of a test, in each way to run one. Those that need machines are marked `cluster`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import pytest

from tests.setups.apps import Deployed, deploy
from tests.setups.platform import Platform, Setup, postgresql_local, postgresql_nodes, postgresql_ray, sqlite_local

SETUPS = (
    pytest.param(sqlite_local, id="sqlite-local"),
    pytest.param(postgresql_local, id="postgresql-local"),
    pytest.param(postgresql_nodes, id="postgresql-nodes", marks=pytest.mark.cluster),
    pytest.param(postgresql_ray, id="postgresql-ray", marks=pytest.mark.cluster),
)


@pytest.fixture(scope="session", params=SETUPS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Platform]:
    """Start a platform once for all tests."""
    setup = cast("Setup", request.param)
    with setup(tmp_path_factory.mktemp("setup")) as platform:
        yield platform


@pytest.fixture(scope="session")
def app(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deploy the app that most tests call, which always has one runner."""
    return deploy(platform, "everyday", tmp_path_factory.mktemp("everyday"), least=1)


@pytest.fixture
def own_app(platform: Platform, tmp_path: Path) -> Generator[Deployed]:
    """Deploy an app whose runners the test may end."""
    yield deploy(platform, "own", tmp_path, least=1)
    platform.owner.fal("apps", "delete", "own", "--yes")
