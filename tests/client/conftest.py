"""An empty home for each test, a controller, and both client sides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.support import FakeController, Side, serving


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the settings of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("FAL_", "ISOLATE_")) or name in ("SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake() -> Iterator[FakeController]:
    with serving(FakeController()) as controller:
        yield controller


@pytest.fixture(params=["blocking", "asyncio"])
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)
