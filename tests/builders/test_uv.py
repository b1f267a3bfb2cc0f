"""The variables that tell uv about its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fal_server.builders.uv import Uv, trusted_authorities


@pytest.mark.parametrize(("present", "expected"), [(True, {"UV_SYSTEM_CERTS": "1"}), (False, {})])
def test_uv_trusts_the_machines_authorities_if_it_has_any(
    tmp_path: Path, present: bool, expected: dict[str, str]
) -> None:
    bundle = tmp_path / "bundle.pem"
    if present:
        bundle.touch()
    assert trusted_authorities((tmp_path / "absent.pem", bundle)) == expected


def test_the_operator_decides_which_authorities_count(tmp_path: Path) -> None:
    uv = Uv(tmp_path / "cache", {"UV_SYSTEM_CERTS": "0"})
    assert uv.variables["UV_SYSTEM_CERTS"] == "0"
