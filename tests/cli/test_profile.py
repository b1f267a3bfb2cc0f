"""`fal profile` and `fal doctor`."""

from __future__ import annotations

import io
import json

import pytest

from fal.config import load
from fal_cli.main import main
from fal_cli.version import VERSION


@pytest.fixture
def piped(monkeypatch):
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_profile_from_creation_to_deletion(piped, capsys):
    assert main(["profile", "create", "work"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Profile 'work' created; it is the current one.\n"
    assert "`fal profile key` sets one" in captured.err
    piped("kid:very-secret\n")
    assert main(["profile", "key"]) == 0
    assert "very-secret" not in capsys.readouterr().out
    assert main(["profile", "host", "127.0.0.1:8080"]) == 0
    assert load().setting("work", "key") == "kid:very-secret"
    capsys.readouterr()
    assert main(["profiles", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "profiles": [{"profile": "work", "is_set": True, "settings": ["key", "host"]}]
    }
    assert main(["profile", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["*", "work", "key,", "host"]
    assert main(["profile", "unset"]) == 0
    assert load().current_profile is None
    assert main(["profile", "set", "work"]) == 0
    assert load().current_profile == "work"
    assert main(["profile", "delete", "work"]) == 0
    assert load().profiles == {}
    assert load().current_profile is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "nope"], "there is no profile 'nope'; `fal profile create nope` makes one"),
        (["delete", "nope"], "There is no profile 'nope'"),
        (["key"], "no profile is current"),
        (["host", "x"], "no profile is current"),
        (["create", "__internal__"], "cannot be named"),
    ],
)
def test_errors_are_reported(arguments, message, piped, capsys):
    piped("")
    assert main(["profile", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_a_malformed_key_is_refused_and_not_repeated(piped, capsys):
    main(["profile", "create", "work"])
    piped("nonsense-secret")
    assert main(["profile", "key"]) == 1
    captured = capsys.readouterr()
    assert "KEY_ID:KEY_SECRET" in captured.err
    assert "nonsense-secret" not in captured.err
    assert load().setting("work", "key") is None


def test_doctor_shows_host_and_key_and_their_sources(monkeypatch, capsys):
    monkeypatch.setenv("FAL_KEY", "kid:very-secret")
    monkeypatch.setenv("FAL_GRPC_HOST", "127.0.0.1:8080")
    assert main(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert "very-secret" not in text
    assert found["fal"] == VERSION
    assert (found["FAL_HOST"], found["FAL_HOST from"]) == ("127.0.0.1:8080", "FAL_GRPC_HOST")
    assert (found["FAL_KEY"], found["FAL_KEY from"]) == ("kid", "FAL_KEY")
    assert main(["doctor"]) == 0
    assert "very-secret" not in capsys.readouterr().out


def test_doctor_works_without_a_key_and_reports_what_is_malformed(monkeypatch, home, capsys):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["FAL_KEY"] == ""
    (home / "config.toml").write_text("not toml")
    assert main(["doctor", "--json"]) == 0
    assert "is not valid TOML" in json.loads(capsys.readouterr().out)["problem"]
