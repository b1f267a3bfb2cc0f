"""Tries what a step of a Dockerfile can do in a chroot. The user is ordinary: `python -m tests.isolation.chroot_arena`.

This process is the controller, of the same user. The attacks run where the step would, without an image: in the
namespaces that the engine gets for such a build. It prints the successful ones as JSON, without and with these.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from fal_server.builders.container_engine import apart
from tests.isolation import hostile_image
from tests.isolation.build_arena import _end as end

_BUILD = ("build", "--isolation", "chroot")


def fight(home: Path) -> dict[str, dict[str, bool]]:
    """Run the attacks beside this process, and in the engine's namespaces."""
    podman = shutil.which("podman")
    assert podman is not None
    (home / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(home / "run")
    others = Path("/dev/shm") / f"fal-build-{secrets.token_hex(8)}"
    others.write_text("another build's secret")
    daemon = f"fal-daemon-{secrets.token_hex(8)}"
    targets = {"controller": os.getpid(), "others_secret": str(others), "secret": str(others)}
    attacks = [sys.executable, hostile_image.__file__, json.dumps({**targets, "daemon": daemon})]
    ways = {"beside": [], "apart": [*apart(Path(podman), _BUILD)]}
    try:
        return {name: _succeeded([*way, *attacks]) for name, way in ways.items()}
    finally:
        others.unlink()
        end(daemon)  # what ran beside this process left it
        subprocess.run([podman, "system", "migrate"], check=False, capture_output=True)  # ends what keeps namespaces


def _succeeded(command: list[str]) -> dict[str, bool]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.splitlines()[-1].removeprefix("succeeded: "))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fight(Path(os.environ["HOME"]))) + "\n")
