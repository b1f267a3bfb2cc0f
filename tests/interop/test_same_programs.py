"""Programs that use the SDK print the same with both packages. The packages are the published one and ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.controller import BIN, Controller
from tests.support.official import Official

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("use_*.py"))


@pytest.fixture
def ours(client: Official, secure: Controller, tmp_path: Path) -> Official:
    """Return our package with the same controller, key and variables."""
    extra = {**client.extra, "FAL_GRPC_TLS": "1"}
    return Official(python=BIN / "python", home=tmp_path, host=client.host, key=secure.key, extra=extra)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_prints_the_same_with_both_packages(client: Official, ours: Official, program: Path) -> None:
    said = [printed(package, program, name) for package, name in ((client, "theirs"), (ours, "ours"))]
    assert said[0] == said[1]
    assert said[0]


def printed(package: Official, program: Path, name: str) -> list[str]:
    """Run a program with the deployed app and a unique name. Return its own output lines."""
    output = package.run("python", program, "tiny", name).stdout
    return [line for line in output.splitlines() if line.startswith("> ")]
