"""A Dockerfile that reaches for what is not its own. The engine builds in a chroot, and this is root."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fal_server.builders import ContainerBuilder, EngineTrials
from fal_server.core.builds import BuildLimits
from fal_server.core.faults import FailedPrecondition
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import AppFile, EnvironmentSpec
from tests.containers.conftest import BASE_IMAGE, Podman
from tests.isolation.build_arena import _end as end
from tests.support.controller import ROOT

ISOLATION = ROOT / "tests" / "isolation"
SCRIPTS = [ISOLATION / name for name in ("hostile.py", "hostile_image.py")]
HASHES = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in SCRIPTS}


class Scripts:
    """The uploaded files of the build: the attacks."""

    def path(self, account: AccountId, digest: str) -> Path:
        return HASHES[digest]


def builder_of(controllers, podman: Podman, root: Path, limits: BuildLimits | None = None) -> ContainerBuilder:
    variables, found = {**os.environ, **podman.environment}, controllers[-1].state_dir / "containers"
    return ContainerBuilder(root, Scripts(), variables, EngineTrials(variables, found), limits)


def dockerfile(*steps: str) -> EnvironmentSpec:
    text = "\n".join([f"FROM {BASE_IMAGE}", "COPY hostile.py hostile_image.py /", *steps]) + "\n"
    configuration = {"image": {"dockerfile_str": text}, "python_version": "3.11"}
    spec = EnvironmentSpec(kind="container", configuration=configuration)
    return spec.with_context([AppFile(relative_path=path.name, hash=digest) for digest, path in HASHES.items()])


async def test_a_step_reaches_nothing_of_the_machine(controllers, podman: Podman, tmp_path: Path) -> None:
    daemon = f"fal-daemon-{secrets.token_hex(8)}"
    secret = tmp_path / "admin.key"
    secret.write_text("secret")
    others = Path("/dev/shm") / f"fal-build-{secrets.token_hex(8)}"
    others.write_text("another build's secret")
    lines: list[str] = []

    async def log(entry: LogEntry) -> None:
        lines.append(entry.message)

    targets: Mapping[str, object] = {
        "secret": str(secret),
        "controller": os.getpid(),
        "others_secret": str(others),
        "daemon": daemon,
    }
    try:
        step = f"RUN python3 /hostile_image.py {json.dumps(json.dumps(targets))}"
        await builder_of(controllers, podman, tmp_path / "images").build(dockerfile(step), force=False, log=log)
    finally:
        others.unlink()
    found = next(json.loads(match[1]) for line in lines if (match := re.search(r"succeeded: (.*)$", line)))
    assert found["reads_what_is_its_own"], "the attacks ran"
    assert [name for name, succeeded in found.items() if succeeded] == ["reads_what_is_its_own", "leaves_a_process"]
    assert not end(daemon), "a process is left"


def test_an_ordinary_users_step_reaches_no_process_of_the_machine() -> None:
    become = ["tests.isolation.as_user"] if os.getuid() == 0 else []
    command = [sys.executable, "-m", *become, "tests.isolation.chroot_arena"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    reached = {"sees_processes", "signals_the_controller", "reads_another_builds_secret"}
    assert {name for name in reached if found["beside"][name]} == reached, "the attacks are real"
    assert not {name for name in {*reached, "opens_a_disk", "reads_a_disk"} if found["apart"][name]}


@pytest.mark.parametrize(
    ("step", "limits", "told"),
    [
        ("RUN sleep 1000", {"seconds": 6.0}, "took longer than 6 s"),
        ("RUN for n in $(seq 200); do sleep 1000 & done; wait", {"processes": 150}, "had more than 150 processes"),
        (
            "RUN python3 -c 'import threading; held = bytes(range(256)) * (3 << 20); threading.Event().wait()'",
            {"memory_mib": 600},
            "used more than 600 MiB of memory",
        ),
        ("RUN head -c 200000000 /dev/zero > /large; sleep 1000", {"disk_mib": 120}, "wrote more than 120 MiB"),
    ],
)
async def test_a_build_ends_at_its_limits(controllers, podman: Podman, tmp_path: Path, step, limits, told) -> None:
    async def drop(_: LogEntry) -> None: ...

    builder = builder_of(controllers, podman, tmp_path / "images", BuildLimits(**limits))
    with pytest.raises(FailedPrecondition, match=told):
        await builder.build(dockerfile(step), force=False, log=drop)
    assert list((tmp_path / "images").iterdir()) == []
    assert not [name for name in podman.containers() if "working" in name]
