"""The pytest fixtures of this package: `fal_app`, `fal_local_app`, `fal_controller`, `fal_here`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fal.app import AppClient
    from fal.app.app import App
    from fal.testing.controller import TemporaryController

_ELSEWHERE = ("FAL_HOST", "FAL_PROFILE", "FAL_KEY_ID", "FAL_KEY_SECRET", "FAL_ENV", "FAL_TEAM")


@pytest.fixture(scope="session")
def fal_controller() -> Generator[TemporaryController]:
    """Run a controller in a temporary folder, with `host` and `key`. All tests of this process share it."""
    from fal.testing.controller import TemporaryController

    with TemporaryController() as controller:
        yield controller


@pytest.fixture
def fal_here(fal_controller: TemporaryController, monkeypatch: pytest.MonkeyPatch) -> TemporaryController:
    """Point every client of this test at the temporary controller. The programs that it starts use it, too."""
    for name in _ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAL_GRPC_HOST", fal_controller.host)
    monkeypatch.setenv("FAL_KEY", fal_controller.key)
    return fal_controller


@pytest.fixture
def fal_app(fal_here: TemporaryController) -> Iterator[Callable[[type[App]], AppClient]]:
    """Return a function that serves an app in a runner. It serves in the app's own environment, until the test ends."""
    from fal.app import AppClient

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(AppClient.connect(app))


@pytest.fixture
def fal_local_app() -> Iterator[Callable[[type[App]], AppClient]]:
    """Return a function that serves an app in this process. It serves until the test ends, and needs no controller."""
    from fal.app import AppClient
    from fal.testing.local import serve_here

    with ExitStack() as stack:
        yield lambda app: AppClient(app, stack.enter_context(serve_here(app)))
