"""Every method's second name, and its description for reflection. Published clients use that name."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

PACKAGE = "controller"
SERVICE = "IsolateController"
FULL_NAME = f"{PACKAGE}.{SERVICE}"


def reflection_pool(services: Iterable[ServiceDescriptor], others: Iterable[bytes]) -> DescriptorPool:
    """Return the descriptors for reflection. They are of these services, their second name, and other files.

    It is not the default pool, in which the published stubs, if a process has loaded them, own the second name.

    Args:
        services: those whose methods have the second name.
        others: more files, serialized and without dependencies.
    """
    described = list(services)
    pool = DescriptorPool()
    seen: set[str] = set()
    for service in described:
        _add(pool, service.file, seen)
    for serialized in others:
        pool.AddSerializedFile(serialized)
    pool.AddSerializedFile(_second_name(described).SerializeToString())
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, seen)
    pool.AddSerializedFile(file.serialized_pb)


def _second_name(services: Iterable[ServiceDescriptor]) -> FileDescriptorProto:
    """Describe one service that has the methods of all."""
    file = FileDescriptorProto(name="fal_grpc/controller.proto", package=PACKAGE, syntax="proto3")
    second = file.service.add(name=SERVICE)
    for service in services:
        if service.file.name not in file.dependency:
            file.dependency.append(service.file.name)
        for method in service.methods:
            second.method.add(
                name=method.name,
                input_type=f".{method.input_type.full_name}",
                output_type=f".{method.output_type.full_name}",
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
            )
    return file
