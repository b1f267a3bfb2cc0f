"""One controller for each test process. Each test has its own app names, but those of the dashboard share one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.controller import Controller, running
from tests.support.dashboard import SHOP, Browser
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


@pytest.fixture(scope="module")
def deployed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output of the app's deploy."""
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(SHOP)
    return controller.fal("deploy", str(path)).stdout


@pytest.fixture(scope="module")
def shop(controller: Controller, deployed: str) -> Iterator[Controller]:
    """Return a controller with an app that has a runner."""
    assert "Deployed shop" in deployed
    assert controller.call("/local/shop/", {}, key=controller.key).status == 200
    yield controller
    controller.fal("apps", "delete", "shop")


@pytest.fixture
def owner(shop: Controller) -> Browser:
    """Return a browser of the controller's owner."""
    browser = Browser(shop.host)
    assert browser.log_in(shop.key).status == 303
    return browser
