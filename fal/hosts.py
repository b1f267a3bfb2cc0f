"""Resolves the addresses for calling apps. A call is direct, through a queue, or over a WebSocket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fal.config import truthy
from fal_grpc.channel import check_private
from fal_grpc.credentials import NoCredentials
from fal_grpc.target import Target, parse_target

if TYPE_CHECKING:
    from fal.settings import Settings

_VARIABLES = ("FAL_RUN_HOST", "FAL_QUEUE_RUN_HOST", "FAL_WS_RUN_HOST", "FAL_REST_HOST")
_PLAINTEXT = ("ISOLATE_TEST_MODE", "ISOLATE_AUTH_DISABLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The base addresses for calls. Each has a scheme, may have a path, and has no slash at the end.

    Attributes:
        run: for direct calls.
        queue: for requests through an app's queue.
        ws: for many calls over one WebSocket; its scheme is http or https.
    """

    run: str
    queue: str
    ws: str

    @property
    def realtime(self) -> str:
        """The address for realtime endpoints, which is the one for direct calls."""
        return websocket_url(self.run)


def find_hosts(settings: Settings, environ: Mapping[str, str] = os.environ) -> Hosts:
    """Return FAL_RUN_HOST, FAL_QUEUE_RUN_HOST and FAL_WS_RUN_HOST, or the controller's own addresses.

    Each variable may have a scheme, a port and a path. A self-hosted controller serves its queue at /queue; the fal
    cloud has a host for each kind of call, below the one for direct calls.

    Args:
        settings: the controller, and what the calls carry.
        environ: the environment variables.

    Raises:
        ConfigError: a variable is malformed.
        InsecureChannelError: the key would go to another machine in plaintext.
    """
    target = settings.target
    cloud = target.is_cloud
    run = environ.get("FAL_RUN_HOST", "").strip().rstrip("/") or (_cloud(target) if cloud else target.url)
    queue = environ.get("FAL_QUEUE_RUN_HOST") or (_below("queue", run) if cloud else f"{run}/queue")
    ws = environ.get("FAL_WS_RUN_HOST") or (_below("ws", run) if cloud else run)

    def checked(text: str, source: str) -> str:
        url = base_url(text, target, environ, source=source)
        if not isinstance(settings.credentials, NoCredentials):
            check_private_url(url)
        return url

    return Hosts(
        run=checked(run, "FAL_RUN_HOST"),
        queue=checked(queue, "FAL_QUEUE_RUN_HOST"),
        ws=checked(ws, "FAL_WS_RUN_HOST"),
    )


def variable_of(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the variable that has a URL's host. None means that the controller's own address has it."""
    host = urlsplit(url).netloc
    values = ((name, environ.get(name, "").rpartition("://")[2]) for name in _VARIABLES)
    return next((name for name, value in values if value.partition("/")[0].strip() == host), None)


def base_url(text: str, target: Target, environ: Mapping[str, str], *, source: str) -> str:
    """Return a base address with its scheme.

    An address without a scheme gets the controller's if both are on this machine. Otherwise it gets "http" if
    ISOLATE_TEST_MODE or ISOLATE_AUTH_DISABLED is set or it is on this machine, and "https" if not.

    Args:
        text: a host, which may have a scheme, a port and a path.
        target: the controller.
        environ: the environment variables.
        source: the setting that the text comes from, for the error message.

    Raises:
        ConfigError: the address is malformed.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    authority, slash, path = rest.partition("/")
    plaintext = True if any(truthy(environ, name) for name in _PLAINTEXT) else None
    found = parse_target(f"{scheme}{separator}{authority}", plaintext=plaintext, source=source)
    if not separator and plaintext is None and found.is_loopback and target.is_loopback:
        found = parse_target(authority, plaintext=target.plaintext, source=source)
    return f"{found.url}{slash}{path}".rstrip("/")


def check_private_url(url: str) -> None:
    """Raise an error if others could read data sent to an address.

    Raises:
        ConfigError: the address is malformed.
        InsecureChannelError: the address is on another machine and uses plaintext.
    """
    scheme, _, rest = url.partition("://")
    check_private(parse_target(f"{scheme}://{rest.partition('/')[0]}", source="address"))


def websocket_url(url: str) -> str:
    """Return the WebSocket form of an HTTP address."""
    return "ws" + url.removeprefix("http")


def _cloud(target: Target) -> str:
    """Return the host for calls that belongs to the gRPC host api.NAME."""
    name = target.host.removeprefix("api.").removeprefix("alpha.")
    name = name.removesuffix(".ai") + ".run" if name.endswith(".ai") else name
    return Target(host=name, port=target.port, plaintext=target.plaintext).url


def _below(name: str, host: str) -> str:
    scheme, separator, rest = host.rpartition("://")
    return f"{scheme}{separator}{name}.{rest}"
