"""A runner in a sandbox has its machine type's processes and threads. That holds however its controller runs."""

from __future__ import annotations

import pytest

from fal_runner.isolation.levels import Isolation
from tests.isolation.crowd_arena import FAR_MORE, MOST
from tests.isolation.tables import USERS, fight

ARENA = "crowd_arena"


@pytest.mark.parametrize("where", ["cold", "warm", "threads", "command"])
@pytest.mark.parametrize("user", USERS)
def test_no_more_start_than_its_machine_type_has(user: str, where: str) -> None:
    found = fight(ARENA, Isolation.PROCESS, user)
    if user == "root" and not found["machine"]["enforces"]:
        assert found[where]["started"] == FAR_MORE  # the kernel counts for nobody who is root
        return
    assert MOST // 2 < found[where]["started"] < MOST


@pytest.mark.parametrize("user", USERS)
def test_a_worker_that_waited_is_bounded_too(user: str) -> None:
    found = fight(ARENA, Isolation.PROCESS, user)
    assert found["warm"]["waited"]
    assert not found["cold"]["waited"]
