"""Whoever owns the state directory is never locked out: `fal up --new-key` makes a key, whatever the others are."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.controller import start


def test_a_lost_key_is_made_again_while_other_keys_stay(tmp_path: Path) -> None:
    first = start(tmp_path / "state")
    first.fal("keys", "create", "--scope", "admin", "--desc", "another")
    first.fal("keys", "revoke", first.key.partition(":")[0])
    (tmp_path / "state" / "admin.key").unlink()
    status = first.fal("status")
    assert "`fal up --new-key` makes another one" in status.stderr
    running = first.fal("up", "--detach", "--new-key", check=False)
    assert running.returncode == 1
    assert "fal down --keep-runners" in running.stderr
    first.process.send_signal(signal.SIGUSR1)
    assert first.process.wait(60) == 0
    second = start(tmp_path / "state", "--new-key")
    assert second.key != first.key
    assert "made by a start with --new-key" in second.fal("keys", "list", "-o", "wide").stdout
    assert "another" in second.fal("keys", "list", "-o", "wide").stdout, "the other keys stay"
    assert second.stop() == 0
    third = start(tmp_path / "state")
    assert third.key == second.key, "without the word it stays"
    assert third.stop() == 0
