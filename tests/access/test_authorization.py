"""The parser of the authorization header, which HTTP and gRPC share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.access.authorization import first_key, key_of, token_of
from fal_server.core.faults import Unauthenticated
from fal_server.grpc.caller import credentials

KEY = ("id", "secret")


@pytest.mark.parametrize(
    ("value", "key", "token"),
    [
        ("Key id:secret", KEY, "id:secret"),
        ("key   id:secret  ", KEY, "id:secret"),
        ("Key\tid:secret", KEY, "id:secret"),
        ("KEY \t id:secret", KEY, "id:secret"),
        ("\tKey id:secret", KEY, "id:secret"),
        ("Key\xa0id:secret", KEY, "id:secret"),
        ("Key: id:secret", KEY, "id:secret"),
        ("Bearer id:secret", KEY, "id:secret"),
        ("bearer\tid:secret", KEY, "id:secret"),
        ("id:secret", KEY, "id:secret"),
        ("Key id:se:cret", ("id", "se:cret"), "id:se:cret"),
        ("Key:id:secret", ("Key", "id:secret"), "Key:id:secret"),
        ("Key id", ("id", ""), "id"),
        ("Key", ("", ""), ""),
        ("Bearer a.b.c", None, "a.b.c"),
        ("Bearer", None, ""),
        ("Basic aWQ6c2VjcmV0", None, ""),
        ("Basic id:secret", None, ""),
        ("Digest username=x:y", None, ""),
        ("", None, ""),
    ],
)
def test_what_is_a_key(value: str, key: tuple[str, str] | None, token: str) -> None:
    assert key_of(value) == key
    assert token_of(value) == token


@given(before=st.text(" \t", max_size=2), scheme=st.sampled_from(["Key", "key", "KEY", "Bearer", "bEARER"]),
       between=st.text(" \t\xa0:", min_size=1, max_size=3), after=st.text(" \t", max_size=2))  # fmt: skip
def test_a_key_with_any_gap_is_taken_for_one(before: str, scheme: str, between: str, after: str) -> None:
    value = f"{before}{scheme}{between}id:secret{after}"
    assert key_of(value) is not None, "no app may see it"
    if ":" not in between:
        assert key_of(value) == KEY
        assert credentials([("authorization", value)]) == KEY


def test_the_first_key_among_several_lines_counts() -> None:
    assert first_key(["Basic x", "Key id:secret", "Key other:one"]) == KEY
    assert first_key(["Basic x", "Bearer a.b.c"]) is None


@pytest.mark.parametrize("value", ["Basic aWQ6c2VjcmV0", "Key id", "Key", ""])
def test_grpc_refuses_what_is_no_whole_key(value: str) -> None:
    with pytest.raises(Unauthenticated, match="has no key"):
        credentials([("authorization", value)])


def test_grpc_takes_a_bearer_without_a_colon_for_a_login_token() -> None:
    assert credentials([("authorization", "Bearer a.b.c")]) == "a.b.c"
    assert credentials([("authorization", "Bearer a.b.c"), ("auth-key-id", "i"), ("auth-key", "s")]) == ("i", "s")
