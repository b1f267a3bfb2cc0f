"""Protocols of the client that namespaces use. They are the gRPC and HTTP side of its controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal.rest_aio import AsyncRest
    from fal_grpc.aio import AsyncController
    from fal_grpc.controller import Controller


class Opener(Protocol):
    """Opens the connections of a blocking client. `SyncServerlessClient` is one."""

    def controller(self) -> Controller:
        """Return the controller's calls, opening the channel at first use.

        Raises:
            ClientClosedError: the client was closed.
            ConfigError: no controller or no credentials are configured.
        """
        ...

    def rest(self) -> Rest:
        """Return the HTTP side of the controller. Raises the errors of `controller`."""
        ...


class AsyncOpener(Protocol):
    """`Opener` for asyncio. `AsyncServerlessClient` is one."""

    async def controller(self) -> AsyncController: ...
    async def rest(self) -> AsyncRest: ...
