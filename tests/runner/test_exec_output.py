"""The output of a command is kept by offset. Only the oldest is dropped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_runner.exec.output import OutputBuffer

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=6000)), max_size=60)


def read_all(buffer: OutputBuffer, offset: int, most: int = 1000) -> list[tuple[int, int, bytes]]:
    found = []
    while (piece := buffer.read(offset, most)) is not None:
        start, _, data = piece
        assert start >= offset
        assert 0 < len(data) <= most
        found.append(piece)
        offset = start + len(data)
    return found


def flat(pieces: list[tuple[int, int, bytes]]) -> list[tuple[int, int]]:
    """Return (stream, byte) for each byte."""
    return [(stream, byte) for _, stream, data in pieces for byte in data]


@settings(max_examples=60, deadline=None)
@given(pieces=PIECES, data=st.data())
def test_what_is_kept_is_what_was_written_from_any_offset(
    pieces: list[tuple[int, bytes]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer = OutputBuffer(tmp_path_factory.getbasetemp(), memory_bytes=4096, file_bytes=40_000)
    drop = data.draw(st.booleans())
    written: list[tuple[int, int]] = []
    received = 0
    for stream, content in pieces:
        buffer.append(stream, content, drop=drop)
        written += [(stream, byte) for byte in content]
        if data.draw(st.booleans()):
            received = data.draw(st.integers(received, len(written)))
            buffer.received(received)
        if data.draw(st.integers(0, 9)) == 0:
            buffer.rest()
    assert buffer.end == len(written)
    assert buffer.start >= received
    if not drop:
        assert buffer.start == received
    offset = data.draw(st.integers(buffer.start, buffer.end))
    assert flat(read_all(buffer, offset, data.draw(st.integers(1, 9000)))) == written[offset:]
    buffer.close()
    assert buffer.start == buffer.end == len(written)


def test_the_oldest_goes_beyond_the_bound_and_the_file_is_a_ring(tmp_path: Path) -> None:
    buffer = OutputBuffer(tmp_path, memory_bytes=10_000, file_bytes=100_000)
    blocks = [os.urandom(7_001) for _ in range(100)]
    for block in blocks:
        buffer.append(1, block, drop=True)
    whole = b"".join(blocks)
    assert buffer.end == len(whole)
    assert 80_000 < buffer.end - buffer.start <= 100_000
    kept = read_all(buffer, 0)
    assert kept[0][0] == buffer.start
    assert b"".join(data for _, _, data in kept) == whole[buffer.start :]
    assert list(tmp_path.iterdir()) == []  # the file has no name
    buffer.close()


def test_many_small_pieces_cost_no_more_than_they_may(tmp_path: Path) -> None:
    buffer = OutputBuffer(tmp_path, memory_bytes=100_000, file_bytes=150_000)
    for number in range(10_000):
        buffer.append(1 + number % 2, b"x", drop=True)
    assert buffer.end - buffer.start < 1000
    assert buffer.full
    buffer.received(buffer.end)
    assert not buffer.full
    buffer.close()
