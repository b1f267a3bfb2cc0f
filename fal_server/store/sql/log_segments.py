"""Segments of log lines: compressed texts, each with a filter.

A filter has a bit for each four bytes in a row ("gram") of the text's words. A text with a gram whose bit is not set is
nowhere in it, so most segments need not be read. A search verifies what it finds in the rows.
"""

from __future__ import annotations

import json
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

_GRAM = 4
# A third of the bits is set then, and two thirds of the texts with one gram that is missing are recognized by it.
_BITS_OF_A_GRAM = 3
_LEAST_BYTES = 128
# The words of long random lines have nearly all grams. Their filter would take long to make, and leave out nothing.
_MOST_WORD_BYTES = 512 * 1024
_EVERYTHING = b"\xff"
# One call adds so many grams to a set, because no other thread runs meanwhile.
_GRAMS_AT_ONCE = 8192
# Higher levels save a tenth of the space and take three times as long.
_LEVEL = 1
_DOT_ABOVE, _DOTLESS_I = "\u0307", "\u0131"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment's values in the database.

    Attributes:
        grams: the filter.
        text: the folded messages, a line each; compressed.
        places: the runner and sequence of each line; compressed.
    """

    lines: int
    grams: bytes
    text: bytes
    places: bytes


def fold(text: str) -> bytes:
    """Return a form that contains another's if a database finds it.

    Databases ignore case in ASCII only, as Unicode or as a locale says. Turkish has a dotless i, and a dot above I.
    """
    folded = text.lower() if text.isascii() else text.casefold().replace(_DOT_ABOVE, "").replace(_DOTLESS_I, "i")
    return folded.replace("\n", "\r").encode("utf-8", "surrogatepass")


def seal(lines: Sequence[tuple[str, int, str]]) -> Segment:
    """Return the segment of some (runner, sequence, message)."""
    text = b"\n".join([fold(message) for _, _, message in lines])
    runners = {runner_id: number for number, runner_id in enumerate(dict.fromkeys(line[0] for line in lines))}
    places = [list(runners), [runners[line[0]] for line in lines], [line[1] for line in lines]]
    return Segment(
        lines=len(lines),
        grams=_filter(text),
        text=zlib.compress(text, _LEVEL),
        places=zlib.compress(json.dumps(places, separators=(",", ":")).encode(), _LEVEL),
    )


def grams_of(needle: bytes) -> tuple[int, ...]:
    """Return the distinct grams of a folded text; short words have none."""
    return tuple({gram for word in needle.split() for gram in _grams(word)})


def may_contain(filter_: bytes, grams: Sequence[int]) -> bool:
    """Return whether a segment may contain a text with these grams."""
    modulus = len(filter_) * 8 - 1
    for gram in grams:
        bit = gram % modulus
        if not filter_[bit >> 3] & (0x80 >> (bit & 7)):
            return False
    return True


def lines_with(compressed: bytes, needle: bytes) -> list[int]:
    """Return the numbers of the lines that contain a folded text."""
    text, found = zlib.decompress(compressed), list[int]()
    number = start = 0
    while (at := text.find(needle, start)) >= 0:
        number += text.count(b"\n", start, at)
        found.append(number)
        start = text.find(b"\n", at)
        if start < 0:
            break
    return found


def places_of(compressed: bytes, numbers: Sequence[int]) -> list[tuple[str, int]]:
    """Return the runner and sequence of some lines."""
    if not numbers:
        return []
    runners, of_lines, sequences = cast(
        "tuple[list[str], list[int], list[int]]", json.loads(zlib.decompress(compressed))
    )
    return [(runners[of_lines[number]], sequences[number]) for number in numbers]


def _filter(text: bytes) -> bytes:
    # Most words are there many times. The separators are in no word, so neither is a gram with one.
    words = b" ".join(set(text.split()))
    if len(words) > _MOST_WORD_BYTES:
        return _EVERYTHING
    grams = _grams(words)
    size = len(grams) * _BITS_OF_A_GRAM // 8 + _LEAST_BYTES
    digits, modulus = bytearray(b"0") * (size * 8), size * 8 - 1
    for gram in grams:
        digits[gram % modulus] = 0x31
    return int(digits, 2).to_bytes(size, "big")


def _grams(text: bytes) -> set[int]:
    """Return each four bytes in a row as a number. Arrays are several times as fast as slices."""
    found = set[int]()
    for offset in range(_GRAM):
        numbers = array("I")
        numbers.frombytes(text[offset : offset + (len(text) - offset) // _GRAM * _GRAM])
        if sys.byteorder == "big":
            numbers.byteswap()
        for start in range(0, len(numbers), _GRAMS_AT_ONCE):
            found.update(numbers[start : start + _GRAMS_AT_ONCE])
    return found
