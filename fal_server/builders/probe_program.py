"""A static program of some hundred bytes. It is the only content of the image for trials.

So a trial downloads nothing, and needs no shell or C library. The program exits with 0; with an argument it writes to
256 MiB of memory first.
"""

from __future__ import annotations

import platform
import struct

TOUCHED_MIB = 256
_BASE = 0x400000
_HEADERS = 64 + 56
_READ_WRITE_EXECUTE = 7
# Assembled from: if argc < 2 skip; store a byte in each of 65,536 pages from 0x401000 on; exit(0).
_X86_64 = "48833c24027c18bf00104000b900000100c607014881c700100000ffc975f231ffb83c0000000f05"
_AARCH64 = "e00340f91f0800f10b010054010082d20108a0f22200a0d22200003921044091420400f1a1ffff54000080d2a80b80d2010000d4"
_PROGRAMS = {"x86_64": (0x3E, _X86_64), "aarch64": (0xB7, _AARCH64)}


def probe_program(machine: str | None = None) -> bytes | None:
    """Return the program for a processor type as an ELF file. None if there is none.

    Args:
        machine: as in `uname -m`; by default this machine.
    """
    found = _PROGRAMS.get(machine or platform.machine())
    if found is None:
        return None
    number, code = found[0], bytes.fromhex(found[1])
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack(
        "<IIQQQQQQ", 1, _READ_WRITE_EXECUTE, 0, _BASE, _BASE, size, 0x2000 + TOUCHED_MIB * 1024 * 1024, 0x1000
    )
    return header + segment + code
