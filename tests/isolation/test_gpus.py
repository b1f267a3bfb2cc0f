"""A runner sees the device files of its own GPUs. A runner without GPUs sees none."""

from __future__ import annotations

import pytest

from fal_runner.isolation.levels import Isolation
from tests.isolation.gpu_arena import RUNNERS
from tests.isolation.tables import USERS, fight
from tests.isolation.with_gpus import FILES, SHARED

ARENA = "gpu_arena"


@pytest.mark.parametrize("where", ["app", "command"])
@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("user", USERS)
def test_a_sandbox_has_the_runners_own_gpus_alone(user: str, name: str, where: str) -> None:
    held = RUNNERS[name]
    own = {node for gpu in held for node in gpu.nodes}
    assert fight(ARENA, Isolation.PROCESS, user)[name][where] == sorted({*own, *SHARED} if held else [])


@pytest.mark.parametrize("level", [Isolation.VIEW, Isolation.NONE])
@pytest.mark.parametrize("user", USERS)
def test_a_runner_without_a_sandbox_sees_those_of_the_machine(user: str, level: Isolation) -> None:
    assert {tuple(found["app"]) for found in fight(ARENA, level, user).values()} == {tuple(sorted(FILES))}


@pytest.mark.parametrize("level", list(Isolation))
@pytest.mark.parametrize("user", USERS)
def test_cuda_is_told_the_same_at_every_level(user: str, level: Isolation) -> None:
    found = fight(ARENA, level, user)
    assert {name: found[name]["visible"] for name in RUNNERS} == {
        name: ",".join(gpu.id for gpu in held) for name, held in RUNNERS.items()
    }


@pytest.mark.parametrize("user", USERS)
def test_a_worker_waits_for_a_runner_without_gpus_alone(user: str) -> None:
    found = fight(ARENA, Isolation.PROCESS, user)
    assert [name for name in RUNNERS if found[name]["waited"]] == ["none"]
