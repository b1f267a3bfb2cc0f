"""Single GPUs: their labels. No two runners ever have the same one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.actions import Launch
from fal_server.core.gpus import Gpu, assign, counts_of, label_of, made_up, offered
from fal_server.core.machines import MachineType, MachineTypes, Node, Resources
from fal_server.core.placement import held_gpus, plan_launches
from fal_server.core.places import Needs, Room, TakenRoom
from fal_server.core.runners import Runner, RunnerState
from tests.fakes.domain import at, make_runner


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("NVIDIA H100 80GB HBM3", "GPU-H100"),
        ("NVIDIA H100 PCIe", "GPU-H100"),
        ("NVIDIA H200", "GPU-H200"),
        ("NVIDIA A100-SXM4-40GB", "GPU-A100"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "GPU-A100-1G.5GB"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "GPU-H100-1G.10GB.ME"),
        ("NVIDIA GH200 480GB", "GPU-GH200"),
        ("NVIDIA L40S", "GPU-L40S"),
        ("NVIDIA RTX A6000", "GPU-A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "GPU-RTX6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "GPU-RTXPRO6000"),
        ("NVIDIA GeForce RTX 4090", "GPU-RTX4090"),
        ("GeForce RTX 3090 Ti", "GPU-RTX3090TI"),
        ("NVIDIA GeForce GTX 1080 Ti", "GPU-GTX1080TI"),
        ("NVIDIA TITAN V", "GPU-TITANV"),
        ("Tesla T4", "GPU-T4"),
        ("Tesla V100-SXM2-16GB", "GPU-V100"),
        ("", "GPU-UNKNOWN"),
    ],
)
def test_the_labels_of_models(model: str, label: str) -> None:
    assert label_of(model) == label
    assert MachineTypes().get(label).gpu == label


@given(st.text(max_size=60))
def test_every_model_has_a_label_that_is_a_machine_type(model: str) -> None:
    assert MachineTypes().get(label_of(model)).gpus == 1


def test_what_the_operator_says_names_what_is_there_and_makes_up_the_rest() -> None:
    found = tuple(Gpu(id=f"GPU-{n}", label="GPU-H100", model="H100", device=n) for n in range(2))
    assert offered(found, {}) == found
    given = offered(found, {"GPU-BIG": 1, "GPU-SMALL": 2})
    assert [(gpu.id, gpu.label, gpu.exists) for gpu in given] == [
        ("GPU-0", "GPU-BIG", True),
        ("GPU-1", "GPU-SMALL", True),
        ("GPU-SMALL/1", "GPU-SMALL", False),
    ]
    assert Node(name="n", total=Resources(gpus={"GPU-A": 2})).gpus == made_up({"GPU-A": 2})


counts = st.dictionaries(st.sampled_from(["GPU-A", "GPU-B", "GPU-C"]), st.integers(0, 4))


@given(counts, counts, st.sets(st.integers(0, 11)))
def test_only_free_ones_are_chosen_and_each_once(
    there: dict[str, int], wanted: dict[str, int], taken: set[int]
) -> None:
    gpus = made_up(there)
    held = {gpu.id for number, gpu in enumerate(gpus) if number in taken}
    chosen = assign(gpus, held, wanted)
    assert len(set(chosen)) == len(chosen)
    assert not held & set(chosen)
    free = counts_of(gpu for gpu in gpus if gpu.id not in held)
    got = counts_of(gpu for gpu in gpus if gpu.id in chosen)
    assert got == {label: n for label, count in wanted.items() if (n := min(count, free.get(label, 0)))}


@st.composite
def histories(draw: st.DrawFn) -> tuple[Node, list[tuple[str, str, int | None]]]:
    """Draw a node, and the starts and ends of its runners."""
    total = Resources(memory_mib=1 << 20, gpus=draw(counts))
    types = MachineTypes().with_own(
        [MachineType(name="PAIR", milli_cpus=1000, memory_mib=100, gpu="GPU-A", gpus=2)],
    )
    steps = st.tuples(
        st.sampled_from(["start", "end", "restart"]),
        st.sampled_from(["GPU-A", "GPU-B", "PAIR", "XS"]),
        st.none() | st.integers(0, 3),
    )
    return Node(name="n", total=total, machine_types=types), draw(st.lists(steps, max_size=25))


@given(histories())
def test_no_two_runners_ever_have_the_same_gpu(history: tuple[Node, list[tuple[str, str, int | None]]]) -> None:
    node, steps = history
    runners: list[Runner] = []
    wanted: dict[str, tuple[str, int | None]] = {}
    for number, (what, machine_type, num_gpus) in enumerate(steps):
        if what == "end" and runners:
            runners.pop(number % len(runners))
            continue
        name = f"r{number}"
        wanted[name] = (machine_type, num_gpus)
        runners.append(make_runner(name, state=RunnerState.PENDING, created_at=at(number)))
        room = Room()
        room.change(TakenRoom.of(runners, lambda r: wanted[r.runner_id][1]), 1)
        asking = [(r, *wanted[r.runner_id]) for r in runners if r.state is RunnerState.PENDING]
        waiting = [(r, Needs(machine_types=(kind,), num_gpus=num_gpus)) for r, kind, num_gpus in asking]
        plan = plan_launches(waiting, room, [node], at(number))
        launched = {action.runner_id: action for action in plan if isinstance(action, Launch)}
        for place, runner in enumerate(runners):
            if (action := launched.get(runner.runner_id)) is not None:
                started = make_runner(
                    runner.runner_id,
                    state=RunnerState.IDLE,
                    created_at=runner.created_at,
                    node=action.node,
                    machine_type=action.machine_type,
                    gpus=action.gpus,
                )
                runners[place] = started
        owners = Counter(gpu for runner in runners for gpu in runner.gpus)
        assert all(count == 1 for count in owners.values())
        assert set(owners) <= {gpu.id for gpu in node.gpus}
        for runner in runners:
            if runner.state is RunnerState.IDLE:
                asked = node.machine_types.resources_of(runner.machine_type, wanted[runner.runner_id][1]).gpus
                assert counts_of(gpu for gpu in node.gpus if gpu.id in runner.gpus) == asked
        assert set(held_gpus(runners).get("n", {})) == set(owners)
