"""Whether a shim lives is known at any time, also when this process may open nothing more."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from fal_runner.process.proc import process_info
from fal_runner.shim.address import ShimIdentity
from fal_server.engines.local.shim_process import LocalShimProcess


@contextlib.contextmanager
def no_free_descriptor() -> Generator[None]:
    """Use up this process's descriptors; its limit is lowered first, so that few are needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened[0] + 10, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def child() -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def identity_of(child: subprocess.Popen[bytes]) -> ShimIdentity:
    found = process_info(child.pid)
    assert found is not None
    return ShimIdentity(pid=child.pid, started_ticks=found.started_ticks, boot_id="", tag="", address="")


async def test_a_shim_lives_though_no_descriptor_is_free(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    process = LocalShimProcess(tmp_path, identity_of(child))
    process.watch()
    with no_free_descriptor():
        assert process.alive()
    child.kill()
    await process.died.wait()
    assert not process.alive()
    process.close()


async def test_a_later_process_with_the_number_of_a_shim_is_not_it(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    identity = identity_of(child)
    process = LocalShimProcess(tmp_path, replace(identity, started_ticks=identity.started_ticks - 1))
    process.watch()
    assert process.died.is_set()
    assert not process.alive()
    process.close()
