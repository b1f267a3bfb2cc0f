"""`fal profile`."""

from __future__ import annotations

import io
import json

import pytest

from fal.config import load
from fal_cli.main import main


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
