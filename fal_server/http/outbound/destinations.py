"""Decides which addresses the controller calls for a caller. It calls no local or private ones, unless allowed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOBODYS = "192.0.2.1"  # RFC 5737


class ForbiddenDestination(OSError):
    """A host resolves to an address that may not be called."""


class Destinations:
    """Decides which addresses may be connected to.

    Connect to the checked addresses, because a name may resolve to others the next time.

    Args:
        allowed: private networks that may be called.
    """

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)
        # With net.ipv4.ip_nonlocal_bind a successful bind proves nothing.
        self._binds_tell = not _binds(ipaddress.IPv4Address(_NOBODYS))

    def permits(self, address: Address) -> bool:
        """Return whether an address may be called."""
        plain = _plain(address)
        if any(plain in network for network in self._allowed):
            return True
        elsewhere = plain.is_global and not (plain.is_multicast or plain.is_reserved)
        return elsewhere and not (self._binds_tell and _binds(plain))

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the numeric addresses of a host, which may take long.

        Raises:
            ForbiddenDestination: one of them may not be called.
            OSError: the host has none.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else "no host can have this name"
            raise OSError(f"{host} has no address: {reason}") from error
        peers = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for peer in peers:
            address = ipaddress.ip_address(peer.partition("%")[0])
            if not self.permits(address):
                raise ForbiddenDestination(
                    f"leads to {address}, which is this machine or a private network: `fal up --webhook-allow "
                    f"{_plain(address)}` allows it"
                )
        return peers


def _plain(address: Address) -> Address:
    """Return an IPv6 address's embedded IPv4 address, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _binds(address: Address) -> bool:
    """Return whether an address belongs to this machine."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
