"""Reserves free ports for apps across all shims. The ports are outside the range for outgoing connections."""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

_LOWEST = 20000
PORTS_VARIABLE = "FAL_RUNNER_PORTS"
"""Tells commands in a runner, as JSON, how the app's ports were mapped: the app's number -> the actual one."""


class PortUnavailable(Exception):
    """No free port was found."""


class Reservation:
    """A port that no other shim takes while this is held. The app itself binds it.

    The kernel gives outgoing connections ports from ip_local_port_range, so one from there could be taken before a slow
    setup is done. Shims reserve ports below it, and claim each with an abstract socket, which the kernel frees however
    the shim ends.
    """

    def __init__(self, port: int, claim: socket.socket) -> None:
        self.port = port
        self._claim = claim

    def release(self) -> None:
        """Release the port."""
        self._claim.close()


def reserve(host: str) -> Reservation:
    """Reserve a port that is free on this address.

    Raises:
        PortUnavailable: many tries found none.
    """
    low, high = _range()
    for _ in range(1000):
        port = random.randrange(low, high)  # noqa: S311
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0fal-runner-port-{port}")
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((host, port))
        except OSError:
            claim.close()
            continue
        return Reservation(port, claim)
    raise PortUnavailable(f"no free port between {low} and {high - 1} on {host}")


def _range() -> tuple[int, int]:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first - _LOWEST >= 1000:
        return _LOWEST, first
    return (last + 1, 65536) if 65535 - last >= 1000 else (_LOWEST, 65536)


def owners_inode(port: int) -> int | None:
    """Return the inode of a port's listening socket; None if unknown. Its address is 127.0.0.1 or any address."""
    try:
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    for row in rows:
        fields = row.split()
        address, _, number = fields[1].partition(":")
        if fields[3] == "0A" and int(number, 16) == port and address in {"0100007F", "00000000"}:
            return int(fields[9])
    return None


def connected_inode(own: tuple[str, int], other: tuple[str, int]) -> int | None:
    """Return the inode of the socket that connects these addresses. None if no socket has `own` as its own end."""
    ends = [_in_table(own), _in_table(other)]
    if None in ends:
        return None
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if [fields[1][-13:], fields[2][-13:]] == ends:
                return int(fields[9])
    return None


def _in_table(address: tuple[str, int]) -> str | None:
    """Return an IPv4 address as in the kernel's tables; None for others. It may be alone or mapped to IPv6."""
    host, port = address
    try:
        packed = socket.inet_pton(socket.AF_INET, host.removeprefix("::ffff:"))
    except OSError:
        return None
    return f"{int.from_bytes(packed, sys.byteorder):08X}:{port:04X}"


def holds(pid: int, inode: int) -> bool:
    """Return whether a process has this socket open."""
    wanted = f"socket:[{inode}]"
    try:
        return any(str(entry.readlink()) == wanted for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
