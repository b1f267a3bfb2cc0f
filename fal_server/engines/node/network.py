"""The address of a machine on a network that its controller trusts."""

from __future__ import annotations

import ipaddress
import socket


def why_not_own(host: str) -> str:
    """Return why runners' ports are not opened on an address. Return nothing for one that is this machine's alone.

    A machine behind a forwarded port does not have the address by which its controller reaches it.
    """
    try:
        address = ipaddress.ip_address(host)
        if address.is_unspecified or address.is_loopback:
            return f"{host} leads to every machine itself"
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError) as error:
        return f"{host} is not an address of the machine ({error})"
    return ""
