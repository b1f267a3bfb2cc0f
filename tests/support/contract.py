"""The services of the contract, as its generated modules describe them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

import fal_grpc.v1

# Between a controller, its machines and its runners, not for clients.
INTERNAL_SERVICES = {"Host", "Shim"}


def _files() -> list[FileDescriptor]:
    package = fal_grpc.v1.__name__
    names = sorted(module.name for module in iter_modules(fal_grpc.v1.__path__) if module.name.endswith("_pb2"))
    return [import_module(f"{package}.{name}").DESCRIPTOR for name in names]


SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for file in _files() for service in file.services_by_name.values() if service.name not in INTERNAL_SERVICES
)
