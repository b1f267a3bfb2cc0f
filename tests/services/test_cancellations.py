"""An app is told of cancelled requests. It is not told if it has no endpoint for that."""

from __future__ import annotations

from typing import Any

import pytest

from fal_server.core.routing import Outcome
from fal_server.services.cancellations import Cancellations
from tests.fakes.platform import Platform
from tests.fakes.queueing import FakeRunners


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"openapi": {"paths": {"/run": {"post": {}}, "/run/cancel": {"post": {}}}}}, True),
        ({"openapi": {"paths": {"/run": {"post": {}}}}}, False),
        ({}, True),
    ],
)
async def test_who_is_told(platform: Platform, metadata: dict[str, Any], told: bool) -> None:
    await platform.deploy(metadata=metadata)
    lease = await platform.get()
    runners = FakeRunners()
    await Cancellations(platform.catalog, runners).tell(lease, "r", "/run?x=1")
    assert runners.told == ([("r", "/run?x=1")] if told else [])
    platform.dispatcher.release(lease, Outcome.DONE)
