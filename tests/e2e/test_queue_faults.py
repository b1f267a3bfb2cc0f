"""The queue on PostgreSQL under faults. Every accepted request is done and completed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgresql import Postgresql, postgresql
from tests.support.queue_faults import FAULTS, OurQueue, controller_killed, suffered


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def queue(server: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurQueue]:
    made = OurQueue(server, tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=list(FAULTS))
def test_no_accepted_request_is_lost(number: int, queue: OurQueue, server: Postgresql) -> None:
    fault = list(FAULTS.values())[number]
    fate = suffered(queue, fault, server, (number + 1) * 1_000_000)
    assert fate.accepted >= 20
    assert (fate.lost, fate.left) == (0, 0)


def test_none_is_lost_with_its_controller(queue: OurQueue, server: Postgresql) -> None:
    fate = suffered(queue, controller_killed, server, 99_000_000)
    assert fate.accepted >= 20
    assert (fate.lost, fate.left) == (0, 0)
