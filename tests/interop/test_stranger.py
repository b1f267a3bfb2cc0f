"""Clients in any language: stubs from the .proto files alone, and reflection."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.interop.conftest import PROTO_PYTHON
from tests.interop.test_runners import a_runner
from tests.support.controller import ROOT, Controller
from tests.support.official import Official

SERVICES = {"Apps", "Environments", "Keys", "Logs", "Revisions", "Runners", "Runs", "Secrets"}


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return protoc's output for protos/. It comes from an environment with only grpcio and protoc."""
    out = tmp_path_factory.mktemp("stubs")
    protos = ROOT / "protos"
    files = sorted(protos.glob("fal/v1/*.proto"))
    protoc = [PROTO_PYTHON, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*protoc, *files], check=True, cwd=out, timeout=120)
    return out


def test_runners_are_listed_and_logs_followed(
    controller: Controller, official: Official, tiny: str, stubs: Path
) -> None:
    runner_id = a_runner(controller, official, tiny)
    key_id, _, secret = controller.key.partition(":")
    script = Path(__file__).with_name("stranger.py")
    with subprocess.Popen(
        [PROTO_PYTHON, "-I", script, stubs, controller.host, key_id, runner_id, "echo to a stranger"],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        stranger.stdin.write(f"{secret}\n")
        stranger.stdin.close()
        assert stranger.stdout.readline().split()[:2] == ["listed", tiny]
        assert stranger.stdout.readline() == "following\n"
        assert controller.call(f"/local/{tiny}", {"text": "to a stranger"}).status == 200
        assert stranger.stdout.readline() == "heard\n"
        official.fal("runners", "kill", runner_id)
        assert stranger.stdout.read().split() == ["ended", runner_id]
    assert stranger.returncode == 0


@pytest.fixture
def channel(controller: Controller) -> Generator[grpc.Channel]:
    """Open a channel to the shared port."""
    with grpc.insecure_channel(controller.host) as channel:
        yield channel


def test_reflection_shows_every_service_by_both_names(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    listed = set(database.get_services())
    assert listed >= {f"fal.v1.{name}" for name in SERVICES} | {"controller.IsolateController", "grpc.health.v1.Health"}
    pool = DescriptorPool(database)
    ours = pool.FindServiceByName("fal.v1.Runners").FindMethodByName("ListRunners")
    theirs = pool.FindServiceByName("controller.IsolateController").FindMethodByName("ListRunners")
    assert ours.input_type.fields_by_name.keys() == theirs.input_type.fields_by_name.keys()
