"""Converts failed calls into the client's own errors. The blocking and the asyncio client share it."""

from __future__ import annotations

from typing import NoReturn

from fal_grpc.channel import ChannelOptions
from fal_grpc.errors import CallCancelledError, CallError, ClientClosedError, RpcFailure, from_rpc
from fal_grpc.target import Target

CLOSED_IN_FLIGHT = "The client was closed while this call was in flight."


class CallErrors:
    """The errors of the calls of one controller.

    Attributes:
        target: the controller.
        options: how it is called.
    """

    def __init__(self, target: Target, options: ChannelOptions) -> None:
        self.target = target
        self.options = options
        self._closed = False

    def error(self, failure: RpcFailure, method: object) -> CallError | ClientClosedError:
        """Return the client's own error for gRPC's."""
        error = from_rpc(
            failure,
            method=_method_name(method),
            target=str(self.target),
            local=self.target.is_loopback,
            start=self.options.start_command,
            named_by=self.options.named_by,
        )
        if self._closed and isinstance(error, CallCancelledError):
            return ClientClosedError(CLOSED_IN_FLIGHT)
        return error

    def _refuse(self) -> NoReturn:
        raise ClientClosedError("This client is closed. Make a new one, or make its calls inside the `with` block.")


def _method_name(method: object) -> str:
    """Return a method's name for messages, such as "ListRunners". It is empty if gRPC does not have it."""
    path = getattr(method, "_method", b"")
    return path.decode().rpartition("/")[2] if isinstance(path, bytes) else str(path).rpartition("/")[2]
