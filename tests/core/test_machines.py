"""Machine types: what they reserve, and which one fits first. The app's order decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.machines import MachineType, MachineTypes, Resources

TYPES = MachineTypes()
types = st.lists(st.sampled_from(["XS", "S", "M", "L", "XL", "GPU-A", "GPU-B"]), min_size=1, max_size=4)
rooms = st.builds(
    Resources,
    milli_cpus=st.integers(0, 8000),
    memory_mib=st.integers(-1000, 20_000),
    gpus=st.dictionaries(st.sampled_from(["GPU-A", "GPU-B"]), st.integers(-1, 4)),
)


@given(types, st.none() | st.integers(0, 4), rooms)
def test_the_first_that_fits_or_a_reason_for_each(wanted: list[str], gpus: int | None, room: Resources) -> None:
    chosen, reason = TYPES.choose(wanted, gpus, room)
    fitting = [name for name in wanted if room.lacks_for(TYPES.resources_of(name, gpus)) is None]
    if chosen is None:
        assert not fitting
        assert all(f"{name}: " in reason for name in wanted)
    else:
        assert chosen == fitting[0]
        left = room.minus(TYPES.resources_of(chosen, gpus))
        assert left.memory_mib >= 0
        assert all(left.gpus[label] >= 0 for label in TYPES.resources_of(chosen, gpus).gpus)


@given(types, rooms)
def test_a_bigger_room_fits_at_least_as_much(wanted: list[str], room: Resources) -> None:
    bigger = room.plus(Resources(memory_mib=1, gpus={"GPU-A": 1}))
    if TYPES.choose(wanted, None, room)[0] is not None:
        assert TYPES.choose(wanted, None, bigger)[0] is not None


@given(rooms, rooms, st.integers(0, 5))
def test_arithmetic(one: Resources, other: Resources, count: int) -> None:
    there_and_back = one.plus(other).minus(other)
    assert (there_and_back.milli_cpus, there_and_back.memory_mib) == (one.milli_cpus, one.memory_mib)
    assert all(there_and_back.gpus.get(label, 0) == number for label, number in one.gpus.items())
    summed = Resources(gpus={})
    for _ in range(count):
        summed = summed.plus(other)
    assert other.times(count).memory_mib == summed.memory_mib
    assert all(summed.gpus.get(label, 0) == number for label, number in other.times(count).gpus.items())


def test_gpus_are_counted_and_named() -> None:
    assert TYPES.resources_of("GPU-A").gpus == {"GPU-A": 1}
    assert TYPES.resources_of("gpu-a", 3).gpus == {"GPU-A": 3}
    assert TYPES.resources_of("GPU-A", 0).gpus == {"GPU-A": 1}
    _, reason = TYPES.choose(["GPU-A"], 2, Resources(memory_mib=9999, gpus={"GPU-A": 1}))
    assert reason == "no node has room (GPU-A: 2 x GPU-A asked for, 1 free)"


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="'HUGE' is unknown: use one of XS, S, M, L, XL"):
        TYPES.resources_of("HUGE")


def test_a_name_of_an_operator_replaces_one_of_the_usual_and_its_case_does_not_matter() -> None:
    own = MachineType(name="XS", milli_cpus=250, memory_mib=256)
    types = TYPES.with_own([own, MachineType(name="TRAIN", milli_cpus=16_000, memory_mib=65_536, gpu="GPU-A", gpus=2)])
    assert types.get("xs") is own
    assert types.resources_of("train").gpus == {"GPU-A": 2}
    assert types.resources_of("TRAIN", 4).gpus == {"GPU-A": 4}
    assert types.resources_of("M") == TYPES.resources_of("M")
    types.check(["TRAIN", "GPU-H100", "XL"])


@pytest.mark.parametrize(
    ("name", "larger"), [("XS", "S"), ("S", "M"), ("M", "L"), ("L", "XL"), ("XL", ""), ("GPU-A", "")]
)
def test_the_next_larger_type_is_named(name: str, larger: str) -> None:
    limits = TYPES.limits_of(name)
    assert limits.larger == larger
    assert (limits.memory_mib is None) is name.startswith("GPU")


def test_a_share_of_the_processors_grows_with_the_type() -> None:
    weights = [TYPES.limits_of(name).cpu_weight for name in ("XS", "S", "M", "L", "XL")]
    assert weights == [50, 100, 200, 400, 800]
    tiny = TYPES.with_own([MachineType(name="TINY", milli_cpus=1, memory_mib=64)])
    assert tiny.limits_of("TINY").cpu_weight == 1
