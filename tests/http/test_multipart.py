"""Forms: the file arrives unchanged for any division into reads. Anything else is rejected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal.http_messages import file_form
from fal_server.core.faults import InvalidArgument
from fal_server.http.server.multipart import file_field

TYPE = "multipart/form-data; boundary=XX"


async def chunks_of(body: bytes, cuts: Sequence[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        yield body[start:end]


async def field(content_type: str, body: bytes, cuts: Sequence[int] = ()) -> bytes:
    return b"".join([piece async for piece in file_field(content_type, chunks_of(body, cuts))])


@given(
    content=st.one_of(st.binary(max_size=300), st.lists(st.sampled_from([b"\r\n", b"--", b"XX", b"-"])).map(b"".join)),
    cuts=st.lists(st.integers(0, 1000), max_size=20),
)
def test_a_file_arrives_unchanged(content: bytes, cuts: list[int]) -> None:
    body, content_type = file_form(content, 'na"me\r\n.txt')
    assert asyncio.run(field(content_type, body, cuts)) == content


async def test_other_fields_and_what_follows_the_form_are_skipped() -> None:
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="other"\r\n\r\nno\r\n'
        b'--XX\r\ncontent-disposition: form-data; name="file_upload"; filename="f"\r\n\r\nyes\r\n--XX--\r\nrest'
    )
    assert await field(TYPE, body) == b"yes"


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("application/json", b"{}", "multipart/form-data"),
        ("multipart/form-data", b"", "multipart/form-data"),
        (TYPE, b"", "cut off"),
        (TYPE, b'--XX\r\nContent-Disposition: form-data; name="file_upload"\r\n\r\nhalf', "cut off"),
        (TYPE, b'--XX\r\nContent-Disposition: form-data; name="x"\r\n\r\nv\r\n--XX--', "no field file_upload"),
        (TYPE, b"--XX\r\n" + b"h" * 20_000, "header size"),
    ],
)
async def test_a_body_without_a_file_is_rejected(content_type: str, body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        await field(content_type, body)
