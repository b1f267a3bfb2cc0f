"""Nodes and machine types over a real server. Each method has both names."""

from __future__ import annotations

import grpc.aio
import pytest

from fal_grpc.v1 import node_pb2 as pb
from tests.grpc.conftest import Stack


@pytest.mark.parametrize("service", ["fal.v1.Runners", "controller.IsolateController"])
async def test_nodes_and_types(stack: Stack, service: str) -> None:
    call = stack.channel.unary_unary(
        f"/{service}/ListNodes",
        request_serializer=pb.ListNodesRequest.SerializeToString,
        response_deserializer=pb.ListNodesResponse.FromString,
    )
    answer = await call(pb.ListNodesRequest(), metadata=stack.metadata)
    [node] = answer.nodes
    assert (node.name, node.cores, node.memory_bytes, node.reserved_bytes) == ("here", 4.0, 2 << 30, 1 << 30)
    assert {bound.subject: bound.means for bound in node.bounds} == {"memory": "cgroup v2", "processes": "", "cpu": ""}
    assert [(gpu.id, gpu.label, gpu.held, gpu.runner_id, gpu.alias) for gpu in node.gpus] == [
        ("GPU-A/0", "GPU-A", True, "r-1", "shop"),
        ("GPU-A/1", "GPU-A", False, "", ""),
    ]
    types = {one.name: one for one in answer.machine_types}
    assert list(types) == ["XS", "S", "M", "L", "XL"]
    assert (types["XS"].memory_bytes, types["XS"].cores, types["XS"].processes) == (512 << 20, 0.5, 2048)
    assert types["XS"].disk_bytes == 20 << 30
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(pb.ListNodesRequest())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
