"""Where a controller listens: parses host and port, and decides between TLS and plaintext."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fal_grpc.errors import ConfigError

DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A controller's address.

    Attributes:
        host: name or IP address, without brackets.
        plaintext: whether to speak without TLS.
    """

    host: str
    port: int
    plaintext: bool

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, so that what is sent cannot be read on the way."""
        return is_loopback(self.host)

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """Where the same controller answers HTTP: the same port, and a host `rest…` where the gRPC host is `api…`."""
        host = "rest" + self.host.removeprefix("api") if self.host.startswith("api") else self.host
        scheme, usual = ("http", 80) if self.plaintext else ("https", 443)
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}" if self.port == usual else f"{scheme}://{name}:{self.port}"

    def __str__(self) -> str:
        return self.authority


def parse_target(text: str, *, plaintext: bool | None = None, source: str = "host") -> Target:
    """An address from what a person wrote.

    Args:
        text: `host`, `host:port`, `[::1]:port`, `::1`, each with `http://` (plaintext) or `https://` (TLS) before it
            or without. Without a port it is 443.
        plaintext: whether to speak without TLS, where the text does not say; None means to loopback addresses alone.
        source: where the text was found, for the error.

    Raises:
        ConfigError: it has another form.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise ConfigError(f"{source}: {text!r} must begin with http://, https://, or the host itself")
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r} is no address: {error}") from None
    if not host or parts.path.strip("/") or parts.query or parts.username or any(c.isspace() for c in host):
        raise ConfigError(f"{source}: {text!r} is no address; write HOST or HOST:PORT, such as 127.0.0.1:8080")
    if port == 0:
        raise ConfigError(f"{source}: {text!r} has no port that can be called")
    if scheme:
        plaintext = scheme == "http"
    elif plaintext is None:
        plaintext = is_loopback(host)
    return Target(host=host, port=port or DEFAULT_PORT, plaintext=plaintext)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone: nothing is looked up."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
