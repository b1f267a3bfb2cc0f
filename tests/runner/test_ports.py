"""Ports for apps are free and reserved across shims. Their listener can be found."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fal_runner.process.ports import holds, owners_inode, reserve


def test_reserved_ports_differ_and_can_be_bound() -> None:
    reservations = [reserve("127.0.0.1") for _ in range(50)]
    ports = {reservation.port for reservation in reservations}
    assert len(ports) == 50
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(port < first for port in ports) or first < 21000
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", reservations[0].port))
        listening.listen()
    for reservation in reservations:
        reservation.release()


def test_a_listener_is_found_by_its_port() -> None:
    reservation = reserve("127.0.0.1")
    assert owners_inode(reservation.port) is None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", reservation.port))
        listening.listen()
        inode = owners_inode(reservation.port)
        assert inode is not None
        assert inode == os.fstat(listening.fileno()).st_ino
        assert holds(os.getpid(), inode)
        assert not holds(os.getppid(), inode)
    assert not holds(os.getpid(), inode)
    reservation.release()
