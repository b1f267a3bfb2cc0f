"""It is always known whether a shim lives. That holds even if this process may open no more files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from fal_runner.process.proc import ProcessInfo, is_alive, process_info, processes_of, variable_of
from fal_runner.shim.address import ShimIdentity
from fal_runner.worker.process_tag import TAG_VARIABLE
from fal_server.engines.local import ownership
from fal_server.engines.local.shim_process import LocalShimProcess

TAG = "1" * 32


@contextlib.contextmanager
def no_free_descriptor() -> Generator[None]:
    """Use up this process's descriptors. Its limit is lowered first, so that few are needed."""
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


def test_a_process_that_cannot_be_read_is_not_gone(child: subprocess.Popen[bytes]) -> None:
    identity = identity_of(child)
    with no_free_descriptor(), pytest.raises(OSError, match="Too many open files"):
        is_alive(identity.pid, identity.started_ticks)
    with no_free_descriptor(), pytest.raises(OSError, match="Too many open files"):
        variable_of(child.pid, "PATH")
    assert is_alive(identity.pid, identity.started_ticks)
    child.kill()
    child.wait()
    assert process_info(child.pid) is None


@pytest.fixture
def tagged() -> Generator[subprocess.Popen[bytes]]:
    variables = {**os.environ, TAG_VARIABLE: TAG}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=variables) as process:
        yield process
        process.kill()


async def test_a_sweep_looks_again_after_it_could_not(
    tmp_path: Path, tagged: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter(range(5))

    def listed(tag: str) -> list[ProcessInfo]:
        if next(failures, None) is not None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return processes_of(tag)

    monkeypatch.setattr(ownership, "processes_of", listed)
    await ownership.sweep(TAG, tmp_path)
    assert await asyncio.to_thread(tagged.wait) == -signal.SIGKILL


async def test_a_later_process_with_the_number_of_a_shim_is_not_it(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    identity = identity_of(child)
    process = LocalShimProcess(tmp_path, replace(identity, started_ticks=identity.started_ticks - 1))
    process.watch()
    assert process.died.is_set()
    assert not process.alive()
    process.close()
