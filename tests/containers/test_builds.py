"""Builds of images: failures, interruptions, images that run themselves, and unused images."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from fal_server.builders import ContainerBuilder, EngineTrials
from fal_server.core.faults import FailedPrecondition, NotFound
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import EnvironmentSpec
from tests.containers.conftest import BASE_IMAGE, Podman, deploy
from tests.support.controller import BIN, Controller, start
from tests.support.waiting import until

APP = """
import fal
from fal.container import ContainerImage


class {name}(fal.App):
    app_auth = "public"
    image = ContainerImage.from_dockerfile_str("FROM {base}\\nRUN {command}\\n", secrets={{"token": "{secret}"}})

    @fal.endpoint("/")
    def greet(self) -> str:
        return "hello"
"""


# This text distinguishes these processes from those of other tests.
OWN = secrets.token_hex(8)


def write(place: Path, name: str, command: str) -> Path:
    path = place / f"{name.lower()}.py"
    path.write_text(APP.format(name=name, base=BASE_IMAGE, command=command, secret=f"hush-hush-{OWN}"))
    return path


def test_a_build_that_fails_is_told_once_with_its_log(controller, tmp_path, podman: Podman):
    done = deploy(controller, write(tmp_path, "Broken", "echo this went wrong >&2; exit 3"), "Broken")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.splitlines().count("this went wrong") == 1
    assert "the environment of broken could not be built: see its log above" in said
    assert "buildah" not in "".join(podman.containers())


def sleeping(name: str) -> bool:
    """Return whether the command of a build runs. It has OWN in its arguments."""
    return any(
        (process.info["cmdline"] or [])[-1:] == [f"{OWN}-{name}"] for process in psutil.process_iter(["cmdline"])
    )


def sleep(name: str) -> str:
    return f"sh -c 'sleep 1357; true' {OWN}-{name}"


def start_deploy(controller: Controller, path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "fal"), "deploy", f"{path}::{name}"],
        env=controller.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_ctrl_c_ends_a_build_and_leaves_nothing_of_it(controller, tmp_path, podman: Podman):
    process = start_deploy(controller, write(tmp_path, "Slow", sleep("slow")), "Slow")
    until(lambda: sleeping("slow"), "the build runs")
    process.send_signal(signal.SIGINT)
    assert "Interrupted" in process.communicate()[0]
    assert process.returncode == 130
    until(lambda: not sleeping("slow"), "the build ends")
    until(lambda: not [name for name in podman.containers() if "working" in name], "its container goes")
    assert not left_in_memory()


def test_a_controller_that_dies_during_a_build_leaves_nothing_for_long(controllers, tmp_path, podman: Podman):
    controller = controllers[-1]
    process = start_deploy(controller, write(tmp_path, "Cut", sleep("cut")), "Cut")
    until(lambda: sleeping("cut"), "the build runs")
    controller.process.kill()
    controller.process.wait()
    process.kill()
    process.communicate()
    controllers.append(start(controller.state_dir, environment=podman.environment))
    assert deploy(controllers[-1], write(tmp_path, "Next", "echo next"), "Next").returncode == 0
    until(lambda: not [name for name in podman.containers() if "working" in name], "its container goes")
    assert not sleeping("cut")
    assert not left_in_memory()


def left_in_memory() -> list[Path]:
    return [path for path in Path("/dev/shm").glob("fal-build-*/*") if OWN in path.read_text(errors="replace")]


def test_an_image_that_runs_itself_is_published_on_loopback(controller, tmp_path, podman: Podman):
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN mkdir /web && echo itself > /web/index.html\n")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.fal.apps.itself]\nauth = 'public'\nexposed_port = 8123\nmachine_type = 'S'\nkeep_alive = 600\n"
        "image = { dockerfile = 'Dockerfile', cmd = 'python3 -m http.server --directory /web 8123' }\n"
    )
    done = subprocess.run(
        ["fal", "deploy", "itself"], cwd=tmp_path, env=controller.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = controller.call("/local/itself/index.html")
    assert (answer.status, answer.body) == (200, b"itself\n")
    listed = json.loads(controller.fal("apps", "runners", "itself", "--json").stdout)
    [runner] = [runner["runner_id"] for runner in listed["runners"]]
    done = controller.fal("runners", "exec", runner, "--", "cat", "/web/index.html")
    assert done.stdout == "itself\n"
    controller.fal("runners", "kill", runner)
    until(lambda: f"fal-{runner}" not in podman.containers(), "the container goes")


class NoFiles:
    """An empty store of uploaded files."""

    def path(self, account: AccountId, digest: str) -> Path:
        raise NotFound(digest)


@pytest.fixture
def builder(controllers, podman: Podman, tmp_path: Path) -> ContainerBuilder:
    """Return a builder with the controller's findings about engines."""
    variables, found = {**os.environ, **podman.environment}, controllers[-1].state_dir / "containers"
    return ContainerBuilder(tmp_path, NoFiles(), variables, EngineTrials(variables, found))


async def drop(_: LogEntry) -> None: ...


def spec(version: str) -> EnvironmentSpec:
    image = {"dockerfile_str": f"FROM {BASE_IMAGE}\nRUN echo one more\n"}
    return EnvironmentSpec(kind="container", configuration={"image": image, "python_version": version})


async def test_an_image_with_another_python_is_refused_by_name(builder):
    with pytest.raises(FailedPrecondition, match=r"the image has Python 3\.11, the app needs 3\.12"):
        await builder.build(spec("3.12"), force=False, log=drop)


async def test_an_image_that_nobody_needs_is_removed(builder, podman: Podman):
    built = await builder.build(spec("3.11"), force=False, log=drop)
    tag = f"localhost/fal-grpc:{built.env_id[:40]}"
    assert podman("images", "-q", tag)
    [generation] = builder.generations()
    assert await builder.delete(generation)
    assert not podman("images", "-q", tag)
    assert builder.generations() == []
