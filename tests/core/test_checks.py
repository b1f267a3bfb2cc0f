"""Constructors refuse invalid values, and name the field."""

from __future__ import annotations

from functools import partial

import pytest

from fal_server.core.checks import check_bounds, inside
from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import AppFile, HealthCheck
from fal_server.services.views import CodeRequest
from tests.fakes.domain import make_revision

HASH = "0" * 64
REVISION = partial(make_revision, "r1", "a")
CODE = partial(CodeRequest, environments=())


@pytest.mark.parametrize(
    ("make", "values", "field"),
    [
        (AppFile, {"hash": "x", "relative_path": "a"}, "hash"),
        (AppFile, {"hash": HASH.replace("0", "A"), "relative_path": "a"}, "hash"),
        (AppFile, {"hash": HASH, "relative_path": ""}, "relative_path"),
        (AppFile, {"hash": HASH, "relative_path": "."}, "relative_path"),
        (AppFile, {"hash": HASH, "relative_path": "/etc/passwd"}, "relative_path"),
        (AppFile, {"hash": HASH, "relative_path": "a/../../b"}, "relative_path"),
        (AppFile, {"hash": HASH, "relative_path": "a\0b"}, "relative_path"),
        (HealthCheck, {"path": "no"}, "path"),
        (HealthCheck, {"path": "/a b"}, "path"),
        (HealthCheck, {"path": "/" * 2001}, "path"),
        (HealthCheck, {"path": "/", "start_period_seconds": -1}, "start_period_seconds"),
        (HealthCheck, {"path": "/", "timeout_seconds": 0}, "timeout_seconds"),
        (HealthCheck, {"path": "/", "failure_threshold": 0}, "failure_threshold"),
        *(
            (make, {field: value}, "termination_grace_period_seconds" if "grace" in field else field)
            for make in (REVISION, CODE)
            for field, value in (
                ("exposed_port", 0),
                ("exposed_port", 65_536),
                ("metrics_port", -1),
                ("num_gpus", 65),
                ("num_gpus", -1),
                ("termination_grace_seconds", 31),
                ("termination_grace_seconds", -1),
            )
        ),
    ],
)
def test_what_cannot_be_is_not_made(make, values, field):
    with pytest.raises(InvalidArgument) as caught:
        make(**values)
    assert caught.value.field == field
    assert caught.value.message.startswith(field) or field == "machine_types"


def test_bounds_are_part_of_the_range():
    check_bounds("n", 0, 0, 5)
    check_bounds("n", 5, 0, 5)
    check_bounds("n", None, 1)
    with pytest.raises(InvalidArgument, match="n is 6: it must lie between 0 and 5"):
        check_bounds("n", 6, 0, 5)
    with pytest.raises(InvalidArgument, match="n is 0: use at least 1"):
        check_bounds("n", 0, 1)


def test_a_fault_is_named_as_the_request_names_it():
    with pytest.raises(InvalidArgument) as caught, inside("files[3]"):
        AppFile(hash="x", relative_path="a")
    assert caught.value.field == "files[3].hash"
    assert caught.value.message.startswith("files[3].hash is not")
