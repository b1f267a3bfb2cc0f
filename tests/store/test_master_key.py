"""Sources of the master key, and which keys are refused."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from fal_server.core.faults import Unavailable
from fal_server.store import load_master_key

KEY = bytes(range(32))
TEXT = base64.b64encode(KEY).decode()


def test_made_once_and_kept(tmp_path):
    key = load_master_key(tmp_path, {})
    assert len(key) == 32
    assert load_master_key(tmp_path, {}) == key
    (path,) = tmp_path.iterdir()
    assert path.name == "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert base64.b64decode(path.read_bytes()) == key


def test_of_many_that_start_all_get_the_same(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_master_key(tmp_path, {}), range(8)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_given_by_variable_or_file(tmp_path):
    file = tmp_path / "elsewhere"
    file.write_text(TEXT + "\n")
    file.chmod(0o400)
    assert load_master_key(tmp_path, {"FAL_MASTER_KEY": TEXT}) == KEY
    assert load_master_key(tmp_path, {"FAL_MASTER_KEY_FILE": str(file), "FAL_MASTER_KEY": ""}) == KEY
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    with pytest.raises(Unavailable, match="both set"):
        load_master_key(tmp_path, {"FAL_MASTER_KEY": TEXT, "FAL_MASTER_KEY_FILE": str(file)})


@pytest.mark.parametrize("text", ["hunter2", base64.b64encode(KEY[:16]).decode(), "é" * 44, TEXT + TEXT])
def test_no_such_key(tmp_path, text):
    with pytest.raises(Unavailable, match="FAL_MASTER_KEY is not a master key, which is 32 random bytes") as caught:
        load_master_key(tmp_path, {"FAL_MASTER_KEY": text})
    assert text not in str(caught.value)
    file = tmp_path / "master.key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(Unavailable, match=r"master\.key is not a master key"):
        load_master_key(tmp_path, {})


def test_files_that_others_can_read_are_refused(tmp_path):
    file = tmp_path / "master.key"
    file.write_text(TEXT)
    file.chmod(0o640)
    with pytest.raises(Unavailable, match=r"can be read by others \(mode 0640\): chmod 600"):
        load_master_key(tmp_path, {})


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(Unavailable, match="none cannot be read: No such file"):
        load_master_key(tmp_path, {"FAL_MASTER_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(Unavailable, match=r"none/master\.key cannot be written: No such file"):
        load_master_key(tmp_path / "none", {})
    (tmp_path / "directory").mkdir(mode=0o700)
    with pytest.raises(Unavailable, match="cannot be read: Is a directory"):
        load_master_key(tmp_path, {"FAL_MASTER_KEY_FILE": str(tmp_path / "directory")})
