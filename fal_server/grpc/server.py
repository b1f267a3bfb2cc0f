"""The gRPC server. It serves the contract, health and reflection, on a Unix socket, a loopback port, or both."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import aio as reflection

from fal_server.core.faults import Unavailable
from fal_server.grpc import compat
from fal_server.grpc.interceptor import AccessInterceptor
from fal_server.grpc.methods import SERVICES, Services, generic_handlers, handlers_by_path
from fal_server.grpc.unary_calls import UnaryCalls

_MEBIBYTE = 1024 * 1024
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 256 * _MEBIBYTE),  # pickled apps
    ("grpc.max_send_message_length", 256 * _MEBIBYTE),
    # No compression: gRPC inflates a whole message before anything can check it, and 60 kB of zeros become 60 MB.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # Bytes of a call's metadata: above the first limit calls are refused at random, above the second always.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    # Clients ping every 30 seconds, even between calls; by default the server would disconnect them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Detects that a caller's machine is gone, so that its shells and streams end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.so_reuseport", 0),  # a port that is in use is an error
)
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class GrpcServer:
    """Serves gRPC. Create and use it in one running event loop.

    Attributes:
        unary_calls: makes the same calls without gRPC.
    """

    def __init__(self, services: Services) -> None:
        interceptor = AccessInterceptor(services.authenticator, services.teams, services.recorder)
        methods = handlers_by_path(services)
        self.unary_calls = UnaryCalls(interceptor, methods)
        self._server = grpc.aio.server(options=OPTIONS, interceptors=[interceptor])
        self._server.add_generic_rpc_handlers(generic_handlers(methods))
        self._names = (*(service.full_name for service in SERVICES), compat.FULL_NAME)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers(self._reflection())

    async def start(self, *, unix_socket: Path | None = None, host: str = "127.0.0.1", port: int | None = None) -> int:
        """Listen.

        Args:
            unix_socket: a path to listen on; None for none.
            host: the address of `port`.
            port: 0 picks a free one; None listens on none.

        Returns:
            The port that was bound; 0 without one.

        Raises:
            Unavailable: the port or the path cannot be listened on.
        """
        bound = 0
        target = f"unix:{unix_socket}"
        try:
            if unix_socket is not None:
                self._server.add_insecure_port(target)
            if port is not None:
                target = f"{host}:{port}"
                bound = self._server.add_insecure_port(target)
        except RuntimeError as error:
            raise Unavailable(f"{target} cannot be listened on: is it in use by another process?") from error
        await self._server.start()
        await self.set_serving(serving=True)
        return bound

    async def set_serving(self, *, serving: bool) -> None:
        """Set the answer to health checks."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Refuse new calls, and cancel unfinished ones after the grace. None cancels at once."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)

    def _reflection(self) -> list[grpc.GenericRpcHandler]:
        """Return the handlers of both versions of the protocol. They differ only in name."""
        pool = compat.reflection_pool(
            SERVICES, (health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb)
        )
        servicer = reflection.ReflectionServicer((*self._names, HEALTH, REFLECTION), pool)
        method = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
            for name in (REFLECTION, _REFLECTION_V1)
        ]
