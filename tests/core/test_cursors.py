"""Cursors are read as they were written; other text is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.cursors import read_cursor, write_cursor

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.none() | st.integers(-(2**63), 2**63) | TEXTS


@given(st.lists(VALUES | st.dictionaries(TEXTS, VALUES, max_size=3), max_size=5))
def test_a_cursor_is_read_as_it_was_written(position: list[object]) -> None:
    cursor = write_cursor(position)
    assert cursor.isascii()
    assert "=" not in cursor
    assert read_cursor(cursor) == position


@pytest.mark.parametrize("cursor", ["", "é", "a", "%%%", "bnVsbA", "W1tb", "\udc80", "x" * 1001])
def test_what_nobody_made_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_cursor(cursor)
