"""Converts launches and machines for the way between controller and nodes."""

from __future__ import annotations

import json

from fal_grpc.v1 import host_pb2 as pb
from fal_server.core.gpus import Gpu, counts_of
from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes, Node, Resources, RunnerLimits
from fal_server.core.revisions import AppFile, EnvironmentSpec, Payload
from fal_server.ports import LaunchSpec


def launch_request(spec: LaunchSpec) -> pb.LaunchRequest:
    """Return a launch for the wire."""
    return pb.LaunchRequest(
        account=spec.account,
        runner_id=spec.runner_id,
        app_name=spec.app_name,
        environment=spec.environment,
        revision_id=spec.revision_id,
        limits=pb.HostLimits(
            machine_type=spec.limits.machine_type,
            memory_mib=spec.limits.memory_mib,
            processes=spec.limits.processes,
            cpu_weight=spec.limits.cpu_weight,
            disk_mib=spec.limits.disk_mib,
            larger=spec.limits.larger,
        ),
        packages=pb.Packages(
            kind=spec.packages.kind,
            configuration=json.dumps(spec.packages.configuration),
            account=spec.packages.account,
        ),
        gpus=spec.gpus,
        function=_payload(spec.function),
        entrypoint=spec.entrypoint,
        setup=_payload(spec.setup),
        files=[pb.HostFile(hash=file.hash, relative_path=file.relative_path) for file in spec.files],
        serves_http=spec.serves_http,
        serves_metrics=spec.serves_metrics,
        app_port=spec.app_port,
        app_metrics_port=spec.app_metrics_port,
        variables=spec.variables,
        redact=spec.redact,
        termination_grace_seconds=spec.termination_grace_seconds,
        token=spec.token,
        network_host=spec.network_host,
    )


def launch_spec(request: pb.LaunchRequest, node: str) -> LaunchSpec:
    """Return a launch from the wire."""
    limits, packages = request.limits, request.packages
    return LaunchSpec(
        account=AccountId(request.account),
        runner_id=request.runner_id,
        node=node,
        app_name=request.app_name,
        environment=request.environment,
        revision_id=request.revision_id,
        limits=RunnerLimits(
            machine_type=limits.machine_type,
            memory_mib=limits.memory_mib if limits.HasField("memory_mib") else None,
            processes=limits.processes,
            cpu_weight=limits.cpu_weight,
            disk_mib=limits.disk_mib if limits.HasField("disk_mib") else None,
            larger=limits.larger,
        ),
        packages=EnvironmentSpec(
            kind=packages.kind,
            configuration=json.loads(packages.configuration),
            account=AccountId(packages.account),
        ),
        gpus=tuple(request.gpus),
        function=_payload_of(request.function) if request.HasField("function") else None,
        entrypoint=request.entrypoint if request.HasField("entrypoint") else None,
        setup=_payload_of(request.setup) if request.HasField("setup") else None,
        files=tuple(AppFile(hash=file.hash, relative_path=file.relative_path) for file in request.files),
        serves_http=request.serves_http,
        serves_metrics=request.serves_metrics,
        app_port=request.app_port if request.HasField("app_port") else None,
        app_metrics_port=request.app_metrics_port if request.HasField("app_metrics_port") else None,
        variables=dict(request.variables),
        redact=tuple(request.redact),
        termination_grace_seconds=request.termination_grace_seconds,
        token=request.token,
        network_host=request.network_host,
    )


def machine(node: Node, *, version: str, isolation: str) -> pb.Machine:
    """Return a machine for the wire."""
    return pb.Machine(
        milli_cpus=node.total.milli_cpus,
        memory_mib=node.total.memory_mib,
        gpus=[
            pb.HostGpu(id=gpu.id, label=gpu.label, model=gpu.model, memory_bytes=gpu.memory_bytes, device=gpu.device)
            for gpu in node.gpus
        ],
        bounds=node.bounds,
        trouble=node.trouble,
        version=version,
        isolation=isolation,
        region=node.region,
    )


def node_of(name: str, found: pb.Machine, machine_types: MachineTypes) -> Node:
    """Return a machine from the wire. Its runners can be what this controller offers."""
    gpus = tuple(
        Gpu(id=gpu.id, label=gpu.label, model=gpu.model, memory_bytes=gpu.memory_bytes, device=_device(gpu))
        for gpu in found.gpus
    )
    return Node(
        name=name,
        total=Resources(milli_cpus=found.milli_cpus, memory_mib=found.memory_mib, gpus=counts_of(gpus)),
        machine_types=machine_types,
        gpus=gpus,
        bounds=dict(found.bounds),
        trouble=found.trouble,
        region=found.region,
    )


def _payload(payload: Payload | None) -> pb.HostPayload | None:
    return None if payload is None else pb.HostPayload(method=payload.method, blob=payload.blob)


def _payload_of(payload: pb.HostPayload) -> Payload:
    return Payload(method=payload.method, blob=payload.blob)


def _device(gpu: pb.HostGpu) -> int | None:
    return gpu.device if gpu.HasField("device") else None
