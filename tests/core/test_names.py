"""Users' names: which are accepted, and how an app's full name splits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.names import MAIN, app_name, environment_name, identifier, secret_name, split_app_name

labels = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: "--" not in name
)
environments = st.just(MAIN) | st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(
    lambda name: "--" not in name
)


@given(labels, environments)
def test_a_full_name_says_app_and_environment(name: str, environment: str) -> None:
    full = app_name(name, environment)
    assert split_app_name(full) == (name, environment)
    assert app_name(full, environment) == full
    assert app_name(full, MAIN) == full


@given(labels)
def test_main_may_be_said_and_is_never_part_of_the_name(name: str) -> None:
    assert app_name(f"{name}--main", MAIN) == name


@given(st.text(max_size=30), environments)
def test_whatever_is_accepted_comes_apart_again(text: str, environment: str) -> None:
    try:
        full = app_name(text, environment)
    except InvalidArgument:
        return
    base, where = split_app_name(full)
    assert app_name(base, where) == full
    assert full.isascii()


@pytest.mark.parametrize(
    "bad",
    [
        "",
        " ",
        "-a",
        "a-",
        ".a",
        "a/b",
        "a b",
        "a\n",
        "\u017f",
        "\u212a",
        "ä",
        "x" * 129,
        "a----b",
        "a--b--c",
        "--",
        "a--",
        "--b",
        "a--B",
        "a--b.c",
        "a---b",
    ],
)
def test_no_app_names(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        app_name(bad, MAIN)


def test_the_longest_name_fits_in_every_environment() -> None:
    full = app_name("x" * 128, "staging")
    assert app_name(full, "staging") == full


def test_the_suffix_of_another_environment_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="another environment than 'prod'"):
        app_name("a--staging", "prod")


def test_environments() -> None:
    assert environment_name("") == MAIN
    assert environment_name("dev-2") == "dev-2"
    for bad in ("a--b", "-a", "a-", "A", "a_b", "x" * 65, "a\n"):
        with pytest.raises(InvalidArgument):
            environment_name(bad)


@pytest.mark.parametrize("good", ["A", "_x", "HF_TOKEN", "x" * 255])
def test_secret_names(good: str) -> None:
    assert secret_name(good) == good


@pytest.mark.parametrize(
    "bad", ["", "1A", "A-B", "A=B", "A\n", "x" * 256, "PATH", "LD_PRELOAD", "FAL_RUNNER_ID", "FAL_SHIM_X", "Ä"]
)
def test_no_secret_names(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        secret_name(bad)


def test_ids() -> None:
    assert identifier("a-1_2.3:4", "runner_id") == "a-1_2.3:4"
    for bad in ("", "a b", "a/b", "../x", "x" * 129, "a\x00"):
        with pytest.raises(InvalidArgument) as raised:
            identifier(bad, "runner_id")
        assert raised.value.field == "runner_id"


def test_a_message_shows_a_bad_name_short_and_without_control_characters() -> None:
    with pytest.raises(InvalidArgument) as raised:
        app_name("\x1b[31m" + "x" * 500, MAIN)
    assert "\x1b" not in raised.value.message
    assert len(raised.value.message) < 400
