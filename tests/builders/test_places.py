"""The directories of a build on mounts of their own. The test makes their mount namespace."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_BUILD = """
import sys
from pathlib import Path
from fal_server.builders.places import place_of
cache, environment = map(Path, sys.argv[1:])
environment.mkdir()
with place_of(environment, cache, in_sandbox=True) as place:
    (place.built / "built").touch()
    place.finish()
print(place.is_staged, (environment / "built").exists())
"""


@pytest.mark.parametrize(("mounted", "staged"), [("", True), ("environments", False)])
def test_an_environment_is_built_in_the_cache_if_it_can_move_from_there(tmp_path, mounted, staged):
    for name in ("cache", "environments"):
        (tmp_path / name).mkdir()
    mount = f"mount --bind {tmp_path / mounted} {tmp_path / mounted} && " if mounted else ""
    words = [sys.executable, "-c", _BUILD, str(tmp_path / "cache"), str(tmp_path / "environments" / ("0" * 64 + "-1"))]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--mount", "sh", "-c", f'{mount}exec "$@"', "sh", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(staged), "True"], done.stderr
