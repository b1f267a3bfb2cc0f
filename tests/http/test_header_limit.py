"""The size of a header block of HTTP/2 is limited. That holds for any division into frames and reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fal_server.http.server.header_limit import MOST_BLOCK_BYTES, HeaderLimit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, CONTINUATION, DATA, END_HEADERS = 1, 9, 0, 4


def frame(kind: int, flags: int, size: int) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags, 0, 0, 0, 1]) + bytes(size)


def block(sizes: Iterable[int], *, ends: bool = True) -> bytes:
    """Return a header block in frames of these sizes."""
    first, *rest = sizes
    frames = [frame(HEADERS, 0, first), *(frame(CONTINUATION, 0, size) for size in rest)]
    return b"".join(frames) + (frame(CONTINUATION, END_HEADERS, 0) if ends else b"")


def admitted(content: bytes, cuts: list[int]) -> bool:
    """Feed the content in pieces; every piece must be admitted."""
    limit = HeaderLimit()
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return all(limit.admits(content[start:end]) for start, end in itertools.pairwise(edges))


CUTS = st.lists(st.integers(0, 10**6), max_size=8)
SIZES = st.lists(st.integers(0, 9000), min_size=1, max_size=6)


@given(st.lists(st.tuples(SIZES, st.integers(0, 40_000)), max_size=5), CUTS)
def test_blocks_within_the_limit_pass_with_any_body_between(
    requests: list[tuple[list[int], int]], cuts: list[int]
) -> None:
    content = PREFACE + b"".join(block(sizes) + frame(DATA, 0, size) for sizes, size in requests)
    assert admitted(content, cuts)


@given(SIZES, CUTS)
def test_a_block_beyond_the_limit_is_seen_although_it_never_ends(sizes: list[int], cuts: list[int]) -> None:
    needed = MOST_BLOCK_BYTES // (sum(sizes) + 9 * len(sizes)) + 1
    assert not admitted(PREFACE + block(sizes * needed, ends=False), cuts)


def test_empty_frames_count_too() -> None:
    assert not admitted(PREFACE + block([0] * (MOST_BLOCK_BYTES // 9 + 1), ends=False), [])
