"""A controller whose apps run in real containers. The engine has separate storage.

`make test-containers` makes the base image's root file system; .ci/run installs podman and runsc.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.controller import ROOT, Controller, start

BASE = ROOT / ".cache" / "containers" / "base.tar"
BASE_IMAGE = "localhost/fal-test-base:1"


@dataclass(frozen=True, kw_only=True)
class Podman:
    """The podman of these tests, with its own storage directory."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["podman", *arguments], env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def containers(self) -> list[str]:
        """Return the names of all containers, those of builds among them."""
        return self("ps", "--all", "--external", "--format", "{{.Names}}").splitlines()


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Generator[Podman]:
    """Return podman with the base image."""
    if shutil.which("podman") is None or not BASE.exists():
        pytest.fail("podman or the base image is missing: `make test-containers` says what to install")
    folder = tmp_path_factory.mktemp("storage")
    settings = folder / "storage.conf"
    settings.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "graph"}"\nrunroot = "{folder / "run"}"\n'
    )
    podman = Podman(environment={"CONTAINERS_STORAGE_CONF": str(settings)})
    podman("import", str(BASE), BASE_IMAGE)
    yield podman
    podman("rm", "--all", "--force", "--time", "0", check=False)
    podman("system", "reset", "--force", check=False)


@pytest.fixture(scope="session")
def controllers(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Controller]]:
    """Return the controllers that run on one state directory in turn. The last one is running."""
    state_dir = tmp_path_factory.mktemp("controller")
    types = state_dir.with_name("machines.toml")
    types.write_text(MACHINE_TYPES)
    found = [start(state_dir, "--machine-types", str(types), environment=podman.environment)]
    yield found
    if found[-1].process.poll() is None:
        found[-1].stop()
    assert podman.containers() == [], "nothing is left"


@pytest.fixture
def controller(controllers: list[Controller]) -> Controller:
    return controllers[-1]


@pytest.fixture(scope="session")
def boxed(controllers: list[Controller], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Deploy the app of most tests; return its name."""
    place = write_app(tmp_path_factory.mktemp("app"))
    deploy(controllers[-1], place, "Boxed", SECRET)
    return "boxed"


# Small, so that tests use it up in a second.
MACHINE_TYPES = '[XS]\ncpu = 0.5\nmemory = "512M"\ndisk = "128M"\nprocesses = 512\n'
SECRET = f"hush-hush-{secrets.token_hex(8)}"
APP = '''
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fal
from fal.container import ContainerImage
from pydantic import BaseModel

HERE = Path(__file__).parent


class Input(BaseModel):
    name: str


class Boxed(fal.App, name="boxed", keep_alive=600, max_concurrency=1, termination_grace_period_seconds=20):
    app_auth = "public"
    machine_type = "XS"
    image = ContainerImage.from_dockerfile_str(
        """FROM localhost/fal-test-base:1
ARG WHO
COPY greeting.txt /srv/greeting.txt
RUN echo "$WHO" > /srv/who
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /srv/length
RUN mkdir -m 777 /srv/room
WORKDIR /srv
USER 1234
""",
        build_args={"WHO": "Ada"},
        secrets={"token": os.environ.get("BUILD_TOKEN", "")},
        context_dir=HERE,
    )

    def setup(self) -> None:
        print("setting up as", os.getuid(), file=sys.stderr)

    def teardown(self) -> None:
        print("torn down", flush=True)

    @fal.endpoint("/")
    def greet(self, request: Input) -> dict[str, str]:
        print("greeting", request.name)
        read = {name: Path("/srv", name).read_text().strip() for name in ("greeting.txt", "who", "length")}
        return {**read, "name": request.name, "module": __name__, "runner": os.environ["FAL_RUNNER_ID"]}

    @fal.endpoint("/leave")
    def leave(self) -> dict[str, int]:
        return {"pid": subprocess.Popen(["setsid", "sleep", "1234"]).pid}

    @fal.endpoint("/end")
    def end(self) -> dict[str, int]:
        os._exit(3)

    @fal.endpoint("/fill")
    def fill(self) -> dict[str, int]:
        with open("/srv/room/full", "wb") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
        threading.Event().wait()

    @fal.endpoint("/crowd")
    def crowd(self) -> dict[str, int]:
        made = 0
        while made < 2000:
            if os.fork() == 0:
                threading.Event().wait()
            made += 1
        return {"made": made}

    @fal.endpoint("/eat")
    def eat(self) -> dict[str, int]:
        return {"eaten": len(bytearray(700 << 20))}
'''


def write_app(place: Path) -> Path:
    """Write the app and the file that its image copies. Return the app's path."""
    (place / "greeting.txt").write_text("good day\n")
    (place / "boxed.py").write_text(APP)
    return place / "boxed.py"


def deploy(controller: Controller, path: Path, name: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Deploy with a secret for the build. The command's environment has it."""
    return subprocess.run(
        ["fal", "deploy", f"{path}::{name}"],
        env={**controller.environment, "BUILD_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
