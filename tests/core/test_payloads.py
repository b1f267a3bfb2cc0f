"""Bodies of requests without credentials: texts in fields of credentials are replaced. Nothing else changes."""

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
     "token", "refreshToken", "hf_token", "private_key", "credentials", "cookie", "key", "fal_key", "openaiKey",
     "signing-key", "passphrase", "db_pwd", "bearer"],
)  # fmt: skip
def test_a_credential_is_replaced_wherever_it_is(name: str) -> None:
    sent = {"a": [{name: "geheim"}], name: ["geheim", {"inner": "geheim"}], "seen": "geheim is fine here"}
    kept = redacted(json.dumps(sent).encode())
    assert kept is not None
    found = json.loads(kept)
    assert found["a"] == [{name: REDACTED}]
    assert found[name] == [REDACTED, {"inner": REDACTED}]
    assert found["seen"] == sent["seen"]


@pytest.mark.parametrize(
    "name", ["max_tokens", "prompt_tokens", "keys", "tokenizer", "keyword", "monkey", "name", "value"]
)
def test_names_that_only_look_like_one_stay(name: str) -> None:
    body = json.dumps({name: "here", "token": 3}).encode()
    kept = redacted(body)
    assert kept is not None
    assert json.loads(kept) == json.loads(body)


@pytest.mark.parametrize("body", [None, b"", b"no JSON", b"\xff", b"1" * (MOST_BYTES + 1), b"[" * 20_000])
def test_what_is_no_json_or_too_large_is_not_kept(body: bytes | None) -> None:
    assert redacted(body) is None


def test_an_answer_about_invalid_input_hides_what_was_refused() -> None:
    wrong = {"type": "string_too_short", "loc": ["body", "api_key"], "msg": "at least 20", "input": "geheim"}
    other = {"type": "int_parsing", "loc": ["body", "seed"], "msg": "an integer", "input": "seven"}
    kept = redacted(json.dumps({"detail": [{**wrong, "ctx": {"given": "geheim"}}, other]}).encode())
    assert kept is not None
    assert json.loads(kept) == {"detail": [{**wrong, "input": REDACTED, "ctx": {"given": REDACTED}}, other]}


@pytest.mark.parametrize("label", ["name", "header"])
def test_a_pair_hides_the_value_that_its_name_says(label: str) -> None:
    pairs = [{label: "Authorization", "value": "geheim"}, {label: "Accept", "value": "text/html"}]
    kept = redacted(json.dumps(pairs).encode())
    assert kept is not None
    assert json.loads(kept) == [{label: "Authorization", "value": REDACTED}, pairs[1]]


def test_what_is_nested_deeply_is_kept_or_not_but_no_error() -> None:
    for levels in range(50, 1000, 50):
        body = b"[" * levels + b"]" * levels
        assert redacted(body) in (None, body)
