"""The precedence of settings, as in docs/reference/configuration.md, and the messages of errors."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal import settings as subject
from fal.config import edit, own_path
from fal.login import access_token
from fal.settings import resolve
from fal_grpc.credentials import KeyCredentials, NoCredentials, TokenCredentials
from fal_grpc.errors import ConfigError, MissingCredentialsError

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("argument", "FAL_GRPC_HOST", "FAL_HOST", "profile")
KEYS = ("argument", "FAL_KEY", "profile", "pair", "token")


def token(expires_in: float = 86400) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + expires_in}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.sig"


@given(
    hosts=st.sets(st.sampled_from(HOSTS)),
    keys=st.sets(st.sampled_from(KEYS), min_size=1),
    chosen_by=st.sampled_from(["argument", "FAL_PROFILE", "file"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_the_first_that_is_set_wins(tmp_path, hosts, keys, chosen_by):
    path = tmp_path / "config.toml"
    own_path(path).unlink(missing_ok=True)
    with edit(path) as config:
        for name in ("mine", "other"):
            config.create_profile(name)
            if "profile" in hosts:
                config.set(name, "host", f"{name}.profile")
            if "profile" in keys:
                config.set(name, "key", f"{name}-profile:s")
        config.set_current("mine" if chosen_by == "file" else "other")
    environ = {"FAL_CONFIG_PATH": str(path), "FAL_HOME_DIR": str(tmp_path)}
    environ |= {
        name: f"{name.lower().replace('_', '-')}.env" for name in ("FAL_GRPC_HOST", "FAL_HOST") if name in hosts
    }
    if "FAL_KEY" in keys:
        environ["FAL_KEY"] = "FAL_KEY:s"
    if "pair" in keys:
        environ |= {"FAL_KEY_ID": "pair", "FAL_KEY_SECRET": "s"}
    if chosen_by == "FAL_PROFILE":
        environ["FAL_PROFILE"] = "mine"
    (tmp_path / "auth0_token").write_text(f"refresh\n{token()}" if "token" in keys else "refresh\n")
    if keys == {"token"} or "token" not in keys:
        (tmp_path / "auth0_token").unlink() if "token" not in keys else None

    found = resolve(
        host="argument.host" if "argument" in hosts else None,
        api_key="argument:s" if "argument" in keys else None,
        profile="mine" if chosen_by == "argument" else None,
        environ=environ,
    )

    names = {"argument": "argument.host", "FAL_GRPC_HOST": "fal-grpc-host.env", "FAL_HOST": "fal-host.env"}
    names |= {"profile": "mine.profile"}
    assert found.target.host == next((names[name] for name in HOSTS if name in hosts), "api.alpha.fal.ai")
    first = next(name for name in KEYS if name in keys)
    if first == "token":
        assert isinstance(found.credentials, TokenCredentials)
    else:
        assert found.credentials == KeyCredentials("mine-profile" if first == "profile" else first, "s")
    assert found.profile == "mine"
    assert ":s" not in repr(found)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "FAL_CONFIG_PATH": str(tmp_path / "config.toml"),
        "FAL_HOME_DIR": str(tmp_path),
        "FAL_KEY": "id:hidden-secret",
    }


def test_nothing_at_all_says_how_to_get_a_key(environ):
    del environ["FAL_KEY"]
    with pytest.raises(MissingCredentialsError) as caught:
        resolve(environ=environ)
    for word in ("fal up", "fal env", "FAL_KEY"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        ("", "`fal up` starts a controller here"),
        ('[cloud]\nhost = "api.x"\n', "`fal up` starts a controller here"),
        ('[local]\nkey = "a:b"\n', "no profile is current: `fal profile set local` takes its key;"),
        ('[b]\nkey = "a:b"\n[a]\nkey = "a:b"\n', "`fal profile set a` takes its key, `fal profile list` shows"),
    ],
)
def test_a_profile_that_is_not_current_is_named(environ, profiles, said):
    del environ["FAL_KEY"]
    Path(environ["FAL_CONFIG_PATH"]).write_text(profiles)
    with pytest.raises(MissingCredentialsError) as caught:
        resolve(environ=environ)
    assert said in str(caught.value)


def test_a_controller_is_started_on_the_state_directory_of_its_profile(environ, tmp_path):
    state, environ["FAL_STATE_DIR"] = tmp_path / "my state", str(tmp_path / "usual")
    Path(environ["FAL_CONFIG_PATH"]).write_text(
        f'[local]\nhost = "127.0.0.1:1"\nkey = "a:b"\nstate_dir = "{environ["FAL_STATE_DIR"]}"\n'
        f'[local-2]\nhost = "127.0.0.1:2"\nkey = "a:b"\nstate_dir = "{state}"\n[cloud]\nkey = "a:b"\n'
    )
    started = {
        name: resolve(profile=name, environ=environ).options.start_command for name in ("local", "local-2", "cloud")
    }
    assert started == {"local": "fal up", "local-2": f"fal up -d --state-dir '{state}'", "cloud": "fal up"}
    # Another host than the profile's is no controller of that directory.
    assert resolve(profile="local-2", host="127.0.0.1:3", environ=environ).options.start_command == "fal up"


def test_messages_name_what_has_the_address(environ):
    Path(environ["FAL_CONFIG_PATH"]).write_text('[local]\nhost = "127.0.0.1:1"\nkey = "a:b"\n[cloud]\nkey = "a:b"\n')
    names = {name: resolve(profile=name, environ=environ).options.named_by for name in ("local", "cloud")} | {
        name: resolve(profile="local", environ={**environ, name: "127.0.0.1:4"}).options.named_by
        for name in ("FAL_HOST", "FAL_GRPC_HOST")
    }
    assert names == {
        "local": "profile 'local' (`fal profile host` changes it)",
        "cloud": "no setting (FAL_HOST names another)",
        "FAL_HOST": "FAL_HOST",
        "FAL_GRPC_HOST": "FAL_GRPC_HOST",
    }
    assert resolve(profile="local", host="127.0.0.1:3", environ=environ).options.named_by == "the argument host"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FAL_KEY": "hidden-secret"}, "FAL_KEY must be in 'KEY_ID:KEY_SECRET' format"),
        ({"FAL_PROFILE": "home"}, "no profile 'home'"),
        ({"FAL_GRPC_HOST": "a b"}, "FAL_GRPC_HOST"),
        ({"FAL_GRPC_TIMEOUT": "soon"}, "FAL_GRPC_TIMEOUT"),
        ({"FAL_GRPC_TIMEOUT": "-1"}, "FAL_GRPC_TIMEOUT"),
    ],
)
def test_what_is_malformed_is_named(environ, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(environ=environ | change)
    assert "hidden-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "host", "plaintext", "rest_url"),
    [
        ({}, None, False, "https://rest.alpha.fal.ai"),
        ({"FAL_GRPC_HOST": "127.0.0.1:5"}, None, True, "http://127.0.0.1:5"),
        ({"FAL_GRPC_HOST": "127.0.0.1:5", "FAL_GRPC_TLS": "1"}, None, False, "https://127.0.0.1:5"),
        ({"FAL_GRPC_HOST": "127.0.0.1:5", "FAL_GRPC_TLS": "false"}, None, True, "http://127.0.0.1:5"),
        ({"FAL_HOST": "api.x:5", "ISOLATE_TEST_MODE": "1"}, None, True, "http://rest.x:5"),
        ({"FAL_HOST": "api.x:5", "ISOLATE_TEST_MODE": "0"}, None, False, "https://rest.x:5"),
        ({"ISOLATE_AUTH_DISABLED": "1"}, "api.x", False, "http://rest.x"),
        ({}, "https://localhost:5", False, "https://localhost:5"),
    ],
)
def test_plaintext_or_tls(environ, change, host, plaintext, rest_url):
    found = resolve(host=host, environ=environ | change)
    assert (found.target.plaintext, found.rest_url) == (plaintext, rest_url)


def test_switches(environ):
    assert isinstance(resolve(environ=environ | {"ISOLATE_AUTH_DISABLED": "1"}).credentials, NoCredentials)
    assert isinstance(resolve(environ=environ | {"ISOLATE_AUTH_DISABLED": "False"}).credentials, KeyCredentials)
    Path(environ["FAL_HOME_DIR"], "auth0_token").write_text(f"refresh\n{token()}\n")
    forced = resolve(environ=environ | {"FAL_FORCE_AUTH_BY_USER": "1"})
    assert isinstance(forced.credentials, TokenCredentials)
    assert resolve(environ=environ | {"FAL_GRPC_TIMEOUT": "2.5"}).options.deadline_seconds == 2.5
    moved = resolve(environ=environ | {"FAL_REST_HOST": "rest.y:7"})
    assert (moved.rest_url, moved.account_url) == ("https://rest.alpha.fal.ai", "https://rest.y:7")
    assert resolve(environ=environ | {"FAL_ENV": "staging"}).environment_name == "staging"


def test_where_each_came_from(environ):
    sources = resolve(host="localhost:5", team="crew", environ=environ).sources
    assert sources == {"host": "host", "credentials": "FAL_KEY", "team": "argument"}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("refresh", MissingCredentialsError, "no access token"),
        ("refresh\nnonsense", ConfigError, "holds no login token"),
        ("refresh\na.b.c", ConfigError, "holds no login token"),
        ("refresh\nshort-lived", MissingCredentialsError, "has expired"),
    ],
)
def test_a_login_token_that_cannot_be_used(tmp_path, text, kind, message):
    text = text.replace("short-lived", token(60))
    (tmp_path / "auth0_token").write_text(text)
    with pytest.raises(kind, match=message) as caught:
        access_token(tmp_path)
    secret = text.partition("\n")[2]
    assert not secret or secret not in str(caught.value)


def test_the_docs_name_every_variable_and_no_other():
    code = "".join(
        (ROOT / path).read_text()
        for path in (
            "fal/settings.py",
            "fal/config.py",
            "fal/hosts.py",
            "fal_grpc/channel.py",
            "cli/fal_cli/completion.py",
        )
    )
    docs = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    pattern = r"\b((?:FAL|ISOLATE|SSL|GRPC)_[A-Z_]+[A-Z])\b"
    assert set(re.findall(pattern, code)) - {"ISOLATE_SERVICE"} <= set(re.findall(pattern, docs))
    table = docs.partition("## Environment variables")[2].partition("## The file")[0]
    assert set(re.findall(pattern, table)) <= set(re.findall(pattern, code))


def test_the_docs_have_the_order_of_the_code():
    rows = [
        line
        for line in (ROOT / "docs" / "reference" / "configuration.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    controller = next(row for row in rows if row.startswith("| controller"))
    assert re.findall(r"FAL_\w+|`host` of the profile|api\.alpha", controller) == [
        "FAL_GRPC_HOST",
        "FAL_HOST",
        "`host` of the profile",
        "api.alpha",
    ]
    assert subject.DEFAULT_HOST in controller
