"""The configuration files: settings, errors, and changes. Changes do not touch the published client's file."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from fal.config import config_path, edit, load, own_path, take_over
from fal_grpc.errors import ConfigError

TEXT = """\
# mine
check_updates = false

[work]   # the company's
key = "id:hidden-secret"
host = "api.example.com"

[__internal__]
profile = "work"
team = "crew"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "config.toml"
    found.write_text(TEXT)
    return found


def test_what_it_says(path):
    config = load(path)
    assert config.setting("work", "key") == "id:hidden-secret"
    assert config.setting("work", "absent") is None
    assert (config.current_profile, config.team) == ("work", "crew")
    assert list(config.profiles) == ["work"]
    assert "hidden-secret" not in repr(config)


def test_where_it_is(tmp_path):
    assert config_path({}) == Path("~/.fal/config.toml").expanduser()
    assert config_path({"FAL_CONFIG_PATH": f"{tmp_path}/c.toml"}) == tmp_path / "c.toml"


def test_one_that_is_not_there_is_empty(tmp_path):
    config = load(tmp_path / "absent" / "config.toml")
    assert (config.profiles, config.current_profile, config.team) == ({}, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "not valid TOML"),
        ("__internal__ = 1", "must be a table"),
        ("[__internal__]\nprofile = 1", "profile must be text"),
    ],
)
def test_what_is_wrong_is_said(path, text, message):
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_setting_that_is_no_text_is_not_repeated(path):
    path.write_text('[work]\nkey = ["hidden-secret"]\n')
    with pytest.raises(ConfigError, match="key must be text") as caught:
        load(path).setting("work", "key")
    assert "hidden-secret" not in str(caught.value)


def test_bytes_that_are_no_text(path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(path)
    with pytest.raises(ConfigError, match="not valid TOML"), edit(path):
        pass
    path.write_text(TEXT)
    own_path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"fal-grpc\.toml is not valid TOML"), edit(path):
        pass


def test_an_unknown_profile_is_named_with_those_there_are(path):
    with pytest.raises(ConfigError, match=r"no profile 'home' in .* \(profiles: work\)"):
        load(path).setting("home", "key")


def test_changes_go_to_our_own_file(path):
    own = own_path(path)
    own.write_text('# ours\n[old]\nhost = "a"  # kept\n')
    own.chmod(0o644)
    with edit(path) as config:
        config.create_profile("local")
        config.set("local", "host", "127.0.0.1:1")
        config.set("work", "host", "api.other.com")
        config.unset("work", "absent")
        assert config.current_profile == "work"
        config.set_current("local")
        assert config.profiles == ["work", "old", "local"]
        assert config.setting("work", "host") == "api.other.com"
        assert config.setting("local", "absent") is None
    assert path.read_text() == TEXT
    assert own.read_text().startswith('# ours\n[old]\nhost = "a"  # kept\n')
    config = load(path)
    assert config.setting("local", "host") == "127.0.0.1:1"
    assert config.setting("work", "host") == "api.other.com"
    assert config.setting("work", "key") == "id:hidden-secret"
    assert (config.current_profile, config.chosen_in, config.team) == ("local", own, "crew")
    assert stat.S_IMODE(own.stat().st_mode) == 0o600


def test_no_profile_is_a_choice_too(path):
    with edit(path) as config:
        config.set_current(None)
    assert load(path).current_profile is None


def test_a_new_file_in_a_new_directory(tmp_path):
    path = tmp_path / "new" / "config.toml"
    with edit(path) as config:
        config.create_profile("local")
        config.set("local", "key", 'a:"quoted"\n')
    assert load(path).setting("local", "key") == 'a:"quoted"\n'
    assert not path.exists()
    assert stat.S_IMODE(own_path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_byte_order_mark_is_skipped(path):
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    own_path(path).write_bytes(b'\xef\xbb\xbf[mine]\nkey = "a:b"\n')
    assert sorted(load(path).profiles) == ["mine", "work"]
    with edit(path) as config:
        config.set("mine", "host", "h")
    assert load(path).setting("mine", "host") == "h"


def test_deleting_the_current_profile_leaves_none(path):
    with edit(path) as config:
        config.create_profile("home")
        config.set_current("home")
        config.delete_profile("home")
    assert list(load(path).profiles) == ["work"]
    assert load(path).current_profile is None


LOCAL = TEXT.replace('profile = "work"', 'profile = "local"') + '\n[local]\nhost = "127.0.0.1:7400"\nkey = "a:b"\n'


def test_what_an_earlier_version_wrote_is_moved(path):
    path.write_text(LOCAL)
    assert take_over("local", path)
    config = load(path)
    assert (config.current_profile, config.chosen_in) == ("local", own_path(path))
    assert dict(config.profiles["local"]) == {"host": "127.0.0.1:7400", "key": "a:b"}
    assert path.read_text().strip() == TEXT.replace('profile = "work"\n', "").strip()
    assert not take_over("local", path)


def test_a_choice_of_nothing_else_leaves_no_empty_table(path):
    path.write_text('[local]\nhost = "127.0.0.1:7400"\n\n[__internal__]\nprofile = "local"\n')
    assert take_over("local", path)
    assert path.read_text().strip() == ""


def test_a_profile_that_the_published_client_takes_stays(path):
    text = LOCAL.replace("127.0.0.1:7400", "api.example.com")
    path.write_text(text)
    assert not take_over("local", path)
    assert path.read_text() == text
    assert not own_path(path).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.create_profile("work"), "already"),
        (lambda config: config.create_profile("__internal__"), "cannot be named"),
        (lambda config: config.delete_profile("work"), "published client's file: delete it there"),
        (lambda config: config.create_profile(""), "cannot be named"),
        (lambda config: config.set("home", "key", "x"), "no profile 'home'"),
        (lambda config: config.set_current("home"), "no profile 'home'"),
        (lambda config: config.delete_profile("__internal__"), "no profile"),
    ],
)
def test_a_change_that_cannot_be_leaves_the_file_as_it_was(path, change, message):
    def attempt():
        with edit(path) as config:
            config.set("work", "host", "elsewhere")
            change(config)

    with pytest.raises(ConfigError, match=message):
        attempt()
    assert path.read_text() == TEXT
    assert not own_path(path).exists()


def test_a_linked_file_stays_a_link(path, tmp_path):
    kept = tmp_path / "elsewhere.toml"
    kept.touch()
    own_path(path).symlink_to(kept)
    with edit(path) as config:
        config.set("work", "host", "elsewhere")
    assert own_path(path).is_symlink()
    assert "elsewhere" in kept.read_text()


def test_those_who_edit_at_the_same_time_wait(path):
    def add(number: int) -> None:
        with edit(path) as config:
            config.create_profile(f"p{number}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(load(path).profiles) == {"work", *(f"p{number}" for number in range(12))}
