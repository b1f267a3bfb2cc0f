"""The arguments of `fal api`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal.api import name_in_environment
from fal_cli.commands.api.app_ids import split_id
from fal_cli.commands.api.fields import parse_fields
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.main import build_parser

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["a=1", "b:=1"], {"a": "1", "b": 1}),
        (["a=x=y", "b="], {"a": "x=y", "b": ""}),
        (["a[b]=c", "a[d][e]:=[1, true]"], {"a": {"b": "c", "d": {"e": [1, True]}}}),
        (["a[]=x", "a[]:=2", "a[][n]=y"], {"a": ["x", 2, {"n": "y"}]}),
        (["url=http://host/?a[b]=c"], {"url": "http://host/?a[b]=c"}),
        (['text:="@home"'], {"text": "@home"}),
    ],
)
def test_arguments_make_an_object(words, expected):
    assert parse_fields(words) == expected


@given(value=VALUES)
def test_json_arrives_unchanged(value):
    assert parse_fields([f"key:={json.dumps(value)}"]) == {"key": value}


@given(value=st.text().filter(lambda text: not text.startswith("@")))
def test_text_arrives_unchanged(value):
    assert parse_fields([f"key={value}"]) == {"key": value}


@pytest.mark.parametrize(
    "words",
    [["word"], ["=x"], ["a:=nothing"], ["a=1", "a=2"], ["a=1", "a[b]=2"], ["a[]=1", "a[b]=2"], ["a[b=c"], ["a=@"]],
)
def test_arguments_that_make_no_sense_are_wrong_usage(words):
    with pytest.raises(CommandError) as error:
        parse_fields(words)
    assert error.value.code is ExitCode.USAGE
    assert words[-1] in str(error.value)


def test_files(tmp_path: Path):
    (tmp_path / "text").write_text("words")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "data.json").write_text('{"n": [1]}')
    words = [f"a=@{tmp_path}/text", f"b=@{tmp_path}/image.png", f"c:=@{tmp_path}/data.json"]
    assert parse_fields(words) == {"a": "words", "b": "data:image/png;base64,iVBOR/8=", "c": {"n": [1]}}
    with pytest.raises(FileNotFoundError):
        parse_fields([f"a=@{tmp_path}/none"])


@pytest.mark.parametrize(
    ("model_id", "path", "app"),
    [
        ("me/app", "me/app", "me/app"),
        ("/me/app/a/b/", "me/app/a/b", "me/app"),
        ("app", "nick/app", "nick/app"),
        ("110602490-fast-sdxl", "110602490/fast-sdxl", "110602490/fast-sdxl"),
        ("workflows/me/app/x", "workflows/me/app/x", "workflows/me/app"),
    ],
)
def test_ids(model_id, path, app):
    assert split_id(model_id, "nick") == (path, app)


@pytest.mark.parametrize("model_id", ["", "/", "a b/c", "me/app?x", "workflows/me"])
def test_a_malformed_id_is_wrong_usage(model_id):
    with pytest.raises(CommandError) as error:
        split_id(model_id, "nick")
    assert error.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ["app", "a=1", "b=2", "--direct", "--hint", "h"],
        ["app", "--direct", "a=1", "--hint", "h", "b=2"],
        ["--hint=h", "app", "a=1", "--direct", "b=2"],
    ],
)
def test_flags_may_stand_anywhere(words):
    parsed = build_parser(["api"]).parse_args(["api", *words])
    assert (parsed.model_id, parsed.arguments, parsed.direct, parsed.hint) == ("app", ["a=1", "b=2"], True, "h")
    with pytest.raises(SystemExit):
        build_parser(["api"]).parse_args(["api", *words, "--unknown"])


@pytest.mark.parametrize(
    ("app", "environment", "name"),
    [("a", None, "a"), ("a", "main", "a"), ("a", "staging", "a--staging"), ("a--staging", "staging", "a--staging")],
)
def test_an_app_in_an_environment(app, environment, name):
    assert name_in_environment(app, environment) == name
