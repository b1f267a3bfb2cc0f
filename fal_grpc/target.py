"""The address of a controller. Parses host and port, and decides between TLS and plaintext."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from fal_grpc.errors import ConfigError

DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A controller's address.

    Attributes:
        host: name or IP address, without brackets.
        plaintext: whether to connect without TLS.
        others: further controllers, which answer for the same as this one.
    """

    host: str
    port: int
    plaintext: bool
    others: tuple[Target, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine. Nobody can read the traffic then."""
        return all(is_loopback(each.host) for each in (self, *self.others))

    @property
    def is_cloud(self) -> bool:
        """Whether its name is one of the fal cloud. The cloud has a host for each kind of call."""
        return self.host.startswith("api.")

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """The URL of its HTTP side. It has the same port, and host `rest…` if the gRPC host is `api…`."""
        host = "rest" + self.host.removeprefix("api") if self.host.startswith("api") else self.host
        return replace(self, host=host).url

    @property
    def url(self) -> str:
        """The URL of its own host and port."""
        scheme, usual = ("http", 80) if self.plaintext else ("https", 443)
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{name}" if self.port == usual else f"{scheme}://{name}:{self.port}"

    def __str__(self) -> str:
        return ", ".join(each.authority for each in (self, *self.others))


def parse_target(text: str, *, plaintext: bool | None = None, source: str = "host") -> Target:
    """Parse an address.

    Args:
        text: `host`, `host:port`, `[::1]:port` or `::1`, optionally prefixed with `http://` (plaintext) or `https://`
            (TLS). The default port is 443.
        plaintext: whether to connect without TLS if the text does not say; None means for loopback addresses only.
        source: the setting that the text comes from, for the error.

    Raises:
        ConfigError: it is malformed.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise ConfigError(f"{source}: {text!r} must start with http://, https://, or the host")
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r} is not an address: {error}") from None
    if not host or parts.path.strip("/") or parts.query or parts.username or any(c.isspace() for c in host):
        raise ConfigError(f"{source}: {text!r} is not an address; write HOST or HOST:PORT, such as 127.0.0.1:8080")
    if port == 0:
        raise ConfigError(f"{source}: {text!r} has a port that cannot be called")
    if scheme:
        plaintext = scheme == "http"
    elif plaintext is None:
        plaintext = is_loopback(host)
    return Target(host=host, port=port or DEFAULT_PORT, plaintext=plaintext)


def parse_targets(text: str, *, plaintext: bool | None = None, source: str = "host") -> list[Target]:
    """Parse the addresses of one or several controllers, between commas; see `parse_target`.

    Raises:
        ConfigError: one is malformed or empty, or only some use TLS.
    """
    if "," in text and not all(each.strip() for each in text.split(",")):
        raise ConfigError(f"{source}: {text!r} has a comma too many; write HOST or HOST:PORT between commas")
    found = [parse_target(each, plaintext=plaintext, source=source) for each in text.split(",")]
    if plain := [each.authority for each in found if each.plaintext]:
        tls = [each.authority for each in found if not each.plaintext]
        if tls:
            raise ConfigError(
                f"{source}: {text!r} means TLS for {' and '.join(tls)}, and plaintext for {' and '.join(plain)}; write "
                "https:// before each, if all speak TLS"
            )
    return found


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's. Nothing is resolved."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
