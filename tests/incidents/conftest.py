"""A controller with incidents. The operator has access to its API only."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.incidents.operator_api import Operator
from tests.support.controller import Controller, running

_TYPES = """
[TINY]
cpu = 0.5
memory = "200M"
"""
Deploy = Callable[..., str]


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Run a controller that has a small machine type."""
    place = tmp_path_factory.mktemp("incidents")
    (place / "types.toml").write_text(_TYPES)
    with running(place / "state", "--machine-types", str(place / "types.toml")) as controller:
        yield controller


@pytest.fixture
def operator(controller: Controller) -> Operator:
    """Return the operator who looks for the cause."""
    return Operator(controller)


@pytest.fixture
def deploy(controller: Controller, tmp_path: Path) -> Deploy:
    """Return a function that deploys an app's source. It returns the command's standard error."""

    def run(source: str, *options: str, works: bool = True) -> str:
        (tmp_path / "app.py").write_text(source)
        done = controller.fal("deploy", str(tmp_path / "app.py"), *options, check=False)
        assert (done.returncode == 0) is works, done.stderr
        return done.stderr

    return run
