"""Nodes: the machines that runners run on, with GPUs and machine types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_grpc.v1 import node_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """A GPU, or a slice of one. One runner holds it at a time.

    Attributes:
        id: its UUID, or a made-up name for a simulated GPU.
        label: its name in machine types, such as `GPU-H100`.
        model: the manufacturer's name; empty for a simulated GPU.
        held: whether a runner holds it.
        runner_id: the runner that holds it; None if the runner belongs to another account.
        alias: the app of that runner.
    """

    id: str
    label: str
    model: str
    memory_bytes: int
    held: bool
    runner_id: str | None
    alias: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A machine that runs runners.

    Attributes:
        trouble: why nothing can be started on it now; empty if something can.
        reserved_bytes: how much of `memory_bytes` its runners reserve.
        bounds: what enforces the memory, processes and cpu of machine types; empty if nothing does.
        region: where it is, as its operator calls it; empty if that was not said.
    """

    name: str
    trouble: str
    cores: float
    memory_bytes: int
    reserved_bytes: int
    gpus: tuple[GpuInfo, ...]
    bounds: Mapping[str, str]
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTypeInfo:
    """The resources of one runner.

    Attributes:
        cores: its share of a busy machine.
        memory_bytes: the most memory that it may use; None sets no limit.
        processes: the most processes that it may have at a time, threads included.
        disk_bytes: the most that it may keep in /app and /tmp; None if an older controller does not limit it.
        gpu: the label of its GPUs; empty for none.
        gpus: the number of GPUs, if the app does not set it.
    """

    name: str
    cores: float
    memory_bytes: int | None
    processes: int
    disk_bytes: int | None
    gpu: str
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeList:
    """All nodes, and all described machine types, the usual ones first."""

    nodes: tuple[NodeInfo, ...]
    machine_types: tuple[MachineTypeInfo, ...]


def node_list(message: node_pb2.ListNodesResponse) -> NodeList:
    return NodeList(
        nodes=tuple(_node(node) for node in message.nodes),
        machine_types=tuple(_machine_type(one) for one in message.machine_types),
    )


def list_request() -> node_pb2.ListNodesRequest:
    from fal_grpc.v1 import node_pb2

    return node_pb2.ListNodesRequest()


def _node(message: node_pb2.Node) -> NodeInfo:
    return NodeInfo(
        name=message.name,
        trouble=message.trouble,
        cores=message.cores,
        memory_bytes=message.memory_bytes,
        reserved_bytes=message.reserved_bytes,
        gpus=tuple(_gpu(gpu) for gpu in message.gpus),
        bounds={bound.subject: bound.means for bound in message.bounds},
        region=message.region,
    )


def _gpu(message: node_pb2.Gpu) -> GpuInfo:
    return GpuInfo(
        id=message.id,
        label=message.label,
        model=message.model,
        memory_bytes=message.memory_bytes,
        held=message.held,
        runner_id=message.runner_id or None,
        alias=message.alias or None,
    )


def _machine_type(message: node_pb2.MachineType) -> MachineTypeInfo:
    return MachineTypeInfo(
        name=message.name,
        cores=message.cores,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        processes=message.processes,
        disk_bytes=message.disk_bytes if message.HasField("disk_bytes") else None,
        gpu=message.gpu,
        gpus=message.gpus,
    )
