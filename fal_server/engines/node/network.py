"""The address of a machine on a network that its controller trusts."""

from __future__ import annotations

import ipaddress
import logging
import socket

log = logging.getLogger(__name__)


def own_address(host: str) -> str:
    """Return an address on which runners' ports may be opened. Return nothing for one that is not this machine's alone.

    A machine behind a forwarded port does not have the address by which its controller reaches it.
    """
    if not host:
        return ""
    try:
        address = ipaddress.ip_address(host)
        if address.is_unspecified or address.is_loopback:
            return ""
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError) as error:
        log.warning("requests come through the door only: %s is not this machine's address (%s)", host, error)
        return ""
    return host
