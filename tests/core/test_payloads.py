"""Bodies of requests without credentials: texts in fields that hold one are replaced, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.payloads import MOST_BYTES, REDACTED, redacted

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["prompt", "image_url", "seed", "names"]), inner),
    max_leaves=20,
)


@given(_VALUES)
def test_what_holds_no_credential_stays(value: object) -> None:
    kept = redacted(json.dumps(value).encode())
    assert kept is not None
    assert json.loads(kept) == value


@pytest.mark.parametrize(
    "name",
    ["password", "db_passwd", "client_secret", "apiKey", "api_key", "x-api-key", "Authorization", "access_token",
     "token", "refreshToken", "hf_token", "private_key", "credentials", "cookie", "key"],
)  # fmt: skip
def test_a_credential_is_replaced_wherever_it_is(name: str) -> None:
    sent = {"a": [{name: "geheim"}], name: ["geheim", {"inner": "geheim"}], "seen": "geheim is fine here"}
    kept = redacted(json.dumps(sent).encode())
    assert kept is not None
    found = json.loads(kept)
    assert found["a"] == [{name: REDACTED}]
    assert found[name] == [REDACTED, {"inner": REDACTED}]
    assert found["seen"] == sent["seen"]


@pytest.mark.parametrize("name", ["max_tokens", "prompt_tokens", "keys", "tokenizer", "keyword", "monkey"])
def test_names_that_only_look_like_one_stay(name: str) -> None:
    body = json.dumps({name: "here", "token": 3}).encode()
    kept = redacted(body)
    assert kept is not None
    assert json.loads(kept) == json.loads(body)


@pytest.mark.parametrize("body", [None, b"", b"no JSON", b"\xff", b"1" * (MOST_BYTES + 1), b"[" * 20_000])
def test_what_is_no_json_or_too_large_is_not_kept(body: bytes | None) -> None:
    assert redacted(body) is None
