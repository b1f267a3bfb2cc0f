"""A full disk is reported as the machine's trouble. A start that fails on it is reported so, too."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import Any

import pytest

from fal_server.builders.process import failure
from fal_server.core.faults import FailedPrecondition, NodeTrouble, Unavailable
from fal_server.engines.local import LocalHost
from fal_server.engines.local.machine import disk_trouble
from tests.engines.conftest import NODE

EVERYTHING_MIB = 1 << 40


async def test_a_full_disk_is_the_nodes_trouble(rig: Any) -> None:
    [node] = rig.engine.nodes()
    assert node == NODE
    full = LocalHost(
        rig.root / "full",
        node=NODE,
        builder=rig.built,
        blobs=rig.content,
        files=rig.content,
        least_free_mib=EVERYTHING_MIB,
    )
    try:
        assert "full is full" in full.node().trouble
        wrong = rig.launch(None, entrypoint="no:thing", files={"x": b"a file", "x/y": b"below it"})
        with pytest.raises(NodeTrouble, match="is full, with"):
            await full.start(wrong)
    finally:
        await full.close()
    with pytest.raises(Unavailable) as raised:
        await rig.engine.start(wrong)
    assert not isinstance(raised.value, NodeTrouble)


@pytest.mark.parametrize(("hard", "said"), [(300, "so 65 runners"), (4095, "so 1013 runners"), (4096, "")])
def test_few_open_files_are_said_with_what_they_are_enough_for(hard: int, said: str) -> None:
    program = "from fal_server.engines.local.machine import few_files; print(few_files())"
    command = ["sh", "-c", f'ulimit -n {hard} && exec "$0" -c "{program}"', sys.executable]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said in printed
    assert bool(said) == (f"only {hard} files" in printed) == ("`ulimit -n 4096`" in printed)


def test_a_directory_that_is_gone_is_trouble(rig: Any) -> None:
    assert "cannot be used: No such file" in disk_trouble(rig.root / "nowhere")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_errors_of_the_machine(number: int) -> None:
    assert NodeTrouble.explains(OSError(number, "x"))
    assert not NodeTrouble.explains(OSError(errno.ENOENT, "x"))


def test_what_a_program_says_of_the_disk() -> None:
    full = failure("not installed", ["Downloading", "error: No space left on device (os error 28)"])
    assert isinstance(full, NodeTrouble)
    assert isinstance(failure("not installed", ["error: no such package"]), FailedPrecondition)
