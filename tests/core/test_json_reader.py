"""Foreign JSON: accepted values can be written again. The only error is ValueError."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.json_reader import read_json

DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "text",
    ["", "nothing", DEEP, DEEP + "]" * 200_000, '{"a":' * 100_000, '"\\ud800"', '["\\uDFFF"]', '{"\\udc00": 1}',
     "NaN", "[Infinity]", "-Infinity", "1e999", "[-1E+400]", "9" * 310, "-" + "9" * 5000, '{"a": 1', "\udc80", "'a'"],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)
    with pytest.raises(ValueError, match=r"."):
        read_json(text.encode(errors="surrogatepass"))


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud83d\\ude00"',
        '"\\\\ud800"',
        "1e308",
        "1e-999",
        "9" * 308,
        '"' + "9" * 400 + '"',
        '"1e999"',
        "[[[]]]",
        "\ufeff1",
    ],
)
def test_what_is_read(text: str) -> None:
    value = read_json(text.encode())
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-(10**18), 10**18)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    )
)
@pytest.mark.slow
def test_every_document_is_read_as_it_was_written(value: object) -> None:
    assert read_json(json.dumps(value)) == read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_nothing_but_a_value_error_is_raised(data: bytes | str) -> None:
    try:
        value = read_json(data)
    except ValueError:
        return
    assert not isinstance(value, float) or math.isfinite(value)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
