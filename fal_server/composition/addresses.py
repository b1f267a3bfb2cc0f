"""The controller's addresses. Sockets are bound before anything is built, and URLs follow from them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import quote

from fal_server.composition.settings import Settings
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Unavailable
from fal_server.core.identity import AppId
from fal_server.http.server.listener import bind
from fal_server.services.views import Urls


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The controller's addresses, known from the start.

    Attributes:
        sockets: bound to the port, not listening yet.
        port: for gRPC and HTTP.
        base: host and port by which callers reach the controller.
        tls: whether `port` speaks TLS.
        accounts: filled once the store is open; their names are the first parts of apps' paths.
    """

    sockets: tuple[socket.socket, ...]
    port: int
    base: str
    tls: bool
    accounts: KnownAccounts

    @property
    def url(self) -> str:
        """The controller's address with its scheme."""
        return f"{self._scheme('http')}://{self.base}"

    @property
    def queue(self) -> str:
        """Host and path for queued requests."""
        return f"{self.base}/queue"

    def of_app(self, app_id: AppId) -> Urls:
        """Return the addresses of an app."""
        path = f"{self.accounts.of(app_id.account).nickname}/{app_id}"
        http = self._scheme("http")
        return Urls(
            playground=f"{http}://{self.base}/ui/apps/{quote(str(app_id))}/playground",
            run=f"{http}://{self.base}/{path}",
            queue=f"{http}://{self.queue}/{path}",
            ws=f"{self._scheme('ws')}://{self.base}/{path}",
            log="",
        )

    def _scheme(self, plain: str) -> str:
        return f"{plain}s" if self.tls else plain


async def bind_addresses(settings: Settings) -> Addresses:
    """Bind the controller's port, so that every part knows its address.

    Raises:
        Unavailable: the address cannot be bound.
    """
    try:
        sockets = await bind(settings.host, settings.port)
    except OSError as error:
        raise cannot_listen(settings, error) from error
    port: int = sockets[0].getsockname()[1]
    return Addresses(
        sockets=sockets,
        port=port,
        base=settings.address(port),
        tls=settings.tls is not None,
        accounts=KnownAccounts(),
    )


def cannot_listen(settings: Settings, error: OSError) -> Unavailable:
    """Return the fault for an address that cannot be listened on."""
    address = f"{settings.host}:{settings.port}"
    return Unavailable(f"{address} cannot be listened on: {error.strerror}; --port 0 picks a free one")
