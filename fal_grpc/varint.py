"""Encodes numbers like protobuf, for code that writes messages byte by byte."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """Encode a non-negative number: seven bits per byte, least significant first."""
    if number < 0x4000:
        return _SMALL[number]
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SMALL = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(0x4000)]
