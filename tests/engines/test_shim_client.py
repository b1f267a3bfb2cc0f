"""Calls of a shim that does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fal_grpc.v1 import shim_pb2
from fal_server.core.faults import Unavailable
from fal_server.engines.shim import client as module
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.runner_door import UnixDoor


async def test_a_start_that_is_late_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_START_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "shim.sock"))
        silent.listen()
        client = ShimClient(UnixDoor(tmp_path / "shim.sock", "r"), "token")
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s; the machine may be overloaded"):
            await client.start(shim_pb2.RunnerSpec())
        await client.close()
