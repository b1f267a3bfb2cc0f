"""`fal runners nodes` and `fal runners types`, and the GPUs of runners."""

from __future__ import annotations

import asyncio
import json

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal_cli.main import main
from fal_grpc.v1 import node_pb2 as pb
from fal_grpc.v1 import runner_pb2

GIB = 1 << 30
NODES = pb.ListNodesResponse(
    nodes=[
        pb.Node(
            name="local",
            cores=8,
            memory_bytes=64 * GIB,
            reserved_bytes=3 * GIB,
            gpus=[
                pb.Gpu(id="GPU-1", label="GPU-H100", model="NVIDIA H100", memory_bytes=80 * GIB, held=True),
                pb.Gpu(id="GPU-H100/0", label="GPU-H100"),
            ],
            bounds=[pb.Bound(subject="memory", means="cgroup v2"), pb.Bound(subject="cpu")],
        ),
        pb.Node(name="full", trouble="the disk is full: make room"),
    ],
    machine_types=[
        pb.MachineType(name="XS", cores=0.5, memory_bytes=GIB // 2, processes=2048, disk_bytes=20 * GIB),
        pb.MachineType(name="TRAIN", cores=16, processes=16384, gpu="GPU-H100", gpus=2),
    ],
)


def test_nodes(controller, capsys):
    controller.answers["ListNodes"] = NODES
    held = pb.ListNodesResponse.FromString(NODES.SerializeToString())
    held.nodes[0].gpus[1].held, held.nodes[0].gpus[1].runner_id, held.nodes[0].gpus[1].alias = True, "r-1", "shop"
    assert main(["runners", "nodes"]) == 0
    out = capsys.readouterr().out
    assert "Limits:     memory: cgroup v2, cpu: not enforced" in out
    assert "Memory:     64 GiB, 3.0 GiB of it reserved" in out
    assert "GPUs:       2 x GPU-H100, 1 in use" in out
    assert "Trouble:    the disk is full: make room" in out
    assert "GPU-1" in out
    assert "of another account" in out
    assert "made up" in out
    controller.answers["ListNodes"] = held
    assert main(["runners", "nodes", "--json"]) == 0
    [node, full] = json.loads(capsys.readouterr().out)["nodes"]
    assert node["bounds"] == {"memory": "cgroup v2", "cpu": ""}
    assert [(gpu["id"], gpu["held"], gpu["runner_id"], gpu["alias"]) for gpu in node["gpus"]] == [
        ("GPU-1", True, None, None),
        ("GPU-H100/0", True, "r-1", "shop"),
    ]
    assert full["gpus"] == []


def test_types(controller, capsys):
    controller.answers["ListNodes"] = NODES
    assert main(["runners", "types", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["types"] == [
        {
            "name": "XS",
            "memory_bytes": GIB // 2,
            "cores": 0.5,
            "processes": 2048,
            "disk_bytes": 20 * GIB,
            "gpu": None,
            "gpus": 0,
        },
        {
            "name": "TRAIN",
            "memory_bytes": None,
            "cores": 16.0,
            "processes": 16384,
            "disk_bytes": None,
            "gpu": "GPU-H100",
            "gpus": 2,
        },
    ]
    assert main(["runners", "types"]) == 0
    out = capsys.readouterr().out
    assert "512 MiB" in out
    assert "20 GiB" in out
    assert "GPU-H100=2" in out
    assert "not bounded" in out


def test_the_gpus_of_a_runner(controller, capsys):
    runner = runner_pb2.RunnerInfo(runner_id="r-1", alias="shop", machine_type="GPU-A", gpus=["GPU-1", "GPU-2"])
    controller.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[runner])
    controller.answers["GetRunner"] = runner_pb2.GetRunnerResponse(runner=runner)
    assert main(["runners", "list", "-o", "wide"]) == 0
    assert "GPU-1 GPU-2" in capsys.readouterr().out
    assert main(["runners", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runners"][0]["gpus"] == ["GPU-1", "GPU-2"]
    assert main(["runners", "get", "r-1"]) == 0
    assert "GPUs:               GPU-1 GPU-2" in capsys.readouterr().out


def test_both_faces_of_the_sdk(controller):
    controller.answers["ListNodes"] = NODES
    with SyncServerlessClient() as client:
        found = client.runners.nodes()

    async def awaited():
        async with AsyncServerlessClient() as client:
            return await client.runners.nodes()

    assert found == asyncio.run(awaited())
    assert found.nodes[0].gpus[0].memory_bytes == 80 * GIB
    assert found.machine_types[1].memory_bytes is None
