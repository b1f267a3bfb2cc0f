"""The owner of the state directory is never locked out: `fal up --new-key` creates a key in any case."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.support.controller import start


def test_a_lost_or_revoked_key_is_made_again_while_everything_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = start(state)
    first.fal("keys", "create", "--scope", "admin", "--desc", "another")
    first.fal("keys", "revoke", first.key.partition(":")[0])
    (state / "admin.key").unlink()
    assert stat.S_IMODE((state / "owner.sock").stat().st_mode) == 0o600
    status = json.loads(first.fal("status", "--json").stdout)
    assert (status["running"], status["apps"], status["runners"]) == (True, 0, 0), "without a key"
    assert "`fal up --new-key` makes another one" in first.fal("env", check=False).stderr
    lost = first.fal("up", "--detach")
    assert "There is no key for you" in lost.stderr
    assert "`fal up --new-key` makes one" in lost.stderr.replace("\n", " ")
    made = first.fal("up", "--detach", "--new-key")
    assert "There is no key" not in made.stderr
    key = (state / "admin.key").read_text().strip()
    assert key != first.key
    first.key = key
    listed = first.fal("keys", "list", "-o", "wide").stdout
    assert "made by fal up --new-key" in listed
    assert "another" in listed, "the other keys stay"
    assert "POST /new-key" in first.fal("audit", "list").stdout
    assert f"FAL_KEY={key}" in first.fal("env").stdout.replace("'", "")
    assert first.stop() == 0
    second = start(state)
    assert second.key == key, "it outlives the controller"
    assert second.stop() == 0


def test_a_start_makes_one_too(tmp_path: Path) -> None:
    first = start(tmp_path / "state")
    assert first.stop() == 0
    second = start(tmp_path / "state", "--new-key")
    assert second.key != first.key
    assert second.stop() == 0
