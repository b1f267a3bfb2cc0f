"""Scaling settings: defaults, bounds, and which ones come with a new revision."""

from __future__ import annotations

from typing import Any

import pytest

from fal_server.core.faults import InvalidArgument
from fal_server.core.scaling import BOUNDS, Scaling, carried_over


def test_defaults() -> None:
    assert Scaling() == Scaling(
        keep_alive=10,
        min_concurrency=0,
        max_concurrency=2,
        concurrency_buffer=0,
        concurrency_buffer_perc=0,
        scaling_delay=0,
        max_multiplexing=1,
        request_timeout=3600,
        request_start_timeout=None,
        startup_timeout=600,
        machine_types=("XS",),
    )


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    least, most = BOUNDS[name]
    others: dict[str, Any] = {"max_concurrency": 10_000} if name == "min_concurrency" else {}
    assert most is not None
    for value in (least, most):
        assert getattr(Scaling(**{**others, name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidArgument) as raised:
            Scaling(**{**others, name: value})
        assert raised.value.field == name


def test_the_least_may_not_exceed_the_most() -> None:
    with pytest.raises(InvalidArgument, match="above max_concurrency 2"):
        Scaling(min_concurrency=3)


def test_a_machine_type_is_needed() -> None:
    with pytest.raises(InvalidArgument, match="at least one"):
        Scaling(machine_types=())


def test_with_a_revision_come_the_settings_that_describe_its_code() -> None:
    kept = Scaling(keep_alive=77, max_concurrency=7, machine_types=("S",), max_multiplexing=3, request_timeout=9)
    code = Scaling(keep_alive=1, max_concurrency=1, machine_types=("L", "XL"), max_multiplexing=5, startup_timeout=33)
    assert carried_over(kept, code) == Scaling(
        keep_alive=77,
        max_concurrency=7,
        request_timeout=9,
        machine_types=("L", "XL"),
        max_multiplexing=5,
        startup_timeout=33,
    )
