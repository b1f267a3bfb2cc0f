"""A running platform for every test of the services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.platform import Platform, opened, running
from tests.fakes.queueing import Queueing, queueing
from tests.support.schema import schema  # noqa: F401  (a fixture of every test here)


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Platform]:
    """Return a platform without loops, so that a test makes the plans."""
    async with opened(tmp_path) as platform:
        yield platform


@pytest.fixture
async def platform(idle: Platform) -> AsyncIterator[Platform]:
    async with running(idle):
        yield idle


@pytest.fixture
async def q(platform: Platform) -> AsyncIterator[Queueing]:
    """Provide the queue, and an app with one runner at most."""
    await platform.deploy("a", scaling={"max_concurrency": 1})
    async with queueing(platform) as found:
        yield found
