"""Conversions of nodes and machine types."""

from __future__ import annotations

from fal_grpc.v1 import node_pb2 as pb
from fal_server.core.machines import MachineType
from fal_server.services.nodes import GpuView, NodeView

_MIB = 1024 * 1024
_SUBJECTS = ("memory", "processes", "cpu")


def node_info(view: NodeView) -> pb.Node:
    """Return a node for the wire."""
    node = view.node
    return pb.Node(
        name=node.name,
        trouble=node.trouble,
        region=node.region,
        cores=node.total.milli_cpus / 1000,
        memory_bytes=node.total.memory_mib * _MIB,
        reserved_bytes=view.reserved_mib * _MIB,
        gpus=map(_gpu, view.gpus),
        bounds=[pb.Bound(subject=subject, means=node.bounds.get(subject, "")) for subject in _SUBJECTS],
    )


def machine_type(found: MachineType) -> pb.MachineType:
    """Return a machine type for the wire."""
    return pb.MachineType(
        name=found.name,
        cores=found.milli_cpus / 1000,
        memory_bytes=None if found.memory_mib is None else found.memory_mib * _MIB,
        processes=found.processes,
        disk_bytes=found.disk_mib * _MIB,
        gpu=found.gpu,
        gpus=found.gpus,
    )


def _gpu(view: GpuView) -> pb.Gpu:
    return pb.Gpu(
        id=view.gpu.id,
        label=view.gpu.label,
        model=view.gpu.model,
        memory_bytes=view.gpu.memory_bytes,
        held=view.held,
        runner_id=view.runner.runner_id if view.runner else "",
        alias=view.runner.app_name if view.runner else "",
    )
