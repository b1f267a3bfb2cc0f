"""Opens httpx clients for calls to apps. They have this program's key, CA certificates and proxies."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypedDict

from fal.hosts import Hosts, check_private_url, find_hosts
from fal.http_messages import ClientArguments, client_arguments, kind_of, tls_context

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpx

    from fal.settings import Settings


class WebSocketArguments(TypedDict):
    """Headers, TLS and proxy of a WebSocket; `proxy=True` means the environment's."""

    additional_headers: dict[str, str]
    ssl: SSLContext | None
    proxy: Literal[True] | None


def authorization() -> dict[str, str]:
    """Return the header with this program's key. It is empty without a key, for public apps."""
    return dict(_settings().credentials.headers())


def find_app_hosts() -> Hosts:
    """Return the addresses where this program calls apps. Raises the errors of `find_hosts`."""
    return find_hosts(_settings())


def open_client(url: str, headers: Mapping[str, str], timeout: httpx.Timeout | float | None) -> httpx.Client:
    """Return a client for one address.

    Args:
        url: the address.
        headers: sent with each request.
        timeout: seconds that each step of a request may take; None means no limit.

    Raises:
        InsecureChannelError: the key in the headers would go to another machine in plaintext.
        ModuleNotFoundError: httpx is not installed.
    """
    require_httpx()
    import httpx

    return httpx.Client(headers=dict(headers), timeout=timeout, **_arguments(url, headers))


def open_async_client(url: str, headers: Mapping[str, str], timeout: httpx.Timeout | float | None) -> httpx.AsyncClient:
    """`open_client` for asyncio."""
    require_httpx()
    import httpx

    return httpx.AsyncClient(headers=dict(headers), timeout=timeout, **_arguments(url, headers))


def websocket_arguments(url: str, headers: Mapping[str, str]) -> WebSocketArguments:
    """Return the arguments for the websockets library; `url` is the HTTP address. Raises as `open_client` does."""
    _check_headers(url, headers)
    kind = kind_of(url)
    return WebSocketArguments(
        additional_headers=dict(headers),
        ssl=tls_context(_settings().options) if kind.tls else None,
        proxy=None if kind.local else True,
    )


def require_httpx() -> None:
    """Raise an error if httpx is missing. Only runners whose app asks for it have it.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to do.
    """
    if find_spec("httpx") is None:
        raise ModuleNotFoundError("calling apps needs httpx: add it to the app's requirements", name="httpx")


def _arguments(url: str, headers: Mapping[str, str]) -> ClientArguments:
    _check_headers(url, headers)
    return client_arguments(url, _settings().options)


def _check_headers(url: str, headers: Mapping[str, str]) -> None:
    if any(name.lower() == "authorization" for name in headers):
        check_private_url(url)


def _settings() -> Settings:
    from fal.settings import resolve

    return resolve(needs_key=False)
