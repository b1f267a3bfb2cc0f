"""The official packages share a home with `fal up`. It changes nothing that they read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import up_was_here
from tests.interop.records import covers
from tests.support.controller import BIN, Controller
from tests.support.official import CONFIG, Official

CLOUD = """\
check_updates = false

[__internal__]
profile = "work"

[work]
key = "some:key"
"""


@pytest.fixture
def home(official: Official) -> Path:
    return official.home


def bare(python: Path, home: Path, *command: str) -> str:
    """Run a program of the official environment without variables of fal. A user of the cloud does so, too."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "COLUMNS": "200"}
    done = subprocess.run(
        [python.parent / command[0], *command[1:]],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_file_is_as_it_was(home: Path) -> None:
    assert (home / ".fal" / "config.toml").read_text() == CONFIG


def test_it_is_imported_and_calls_the_cloud(home: Path, python: Path) -> None:
    script = "import fal, fal.apps, fal.sdk, fal.flags, fal_client; print(fal.flags.GRPC_HOST)"
    assert bare(python, home, "python", "-c", script).strip() == "api.alpha.fal.ai"


@covers("profile list")
def test_its_commands_see_no_profile_of_ours(home: Path, python: Path) -> None:
    assert "local" not in bare(python, home, "fal", "profile", "list")


def test_its_own_profile_stays_current(tmp_path: Path, controller: Controller, python: Path) -> None:
    (tmp_path / ".fal").mkdir()
    config = tmp_path / ".fal" / "config.toml"
    config.write_text(CLOUD)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FAL_STATE_DIR": str(controller.state_dir)}
    done = subprocess.run([BIN / "fal", "up"], env=environment, capture_output=True, text=True, check=True)
    assert "profile    local, not current" in done.stdout
    assert config.read_text() == CLOUD
    assert "work" in bare(python, tmp_path, "fal", "profile", "list")


def test_it_is_imported_again_after_an_earlier_version_of_ours(
    home: Path, controller: Controller, official: Official
) -> None:
    config = home / ".fal" / "config.toml"
    config.write_text(CONFIG + '[local]\nhost = "127.0.0.1:1"\n\n[__internal__]\nprofile = "local"\n')
    script = "import fal.flags; print(fal.flags.GRPC_HOST)"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    broken = subprocess.run(
        [official.python, "-c", script], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert "must start with 'api'" in broken.stderr
    up_was_here(controller, home)
    assert bare(official.python, home, "python", "-c", script).strip() == "api.alpha.fal.ai"
    assert config.read_text().strip() == CONFIG.strip()
