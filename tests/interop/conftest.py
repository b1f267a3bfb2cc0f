"""Our controller and the official client. They are collected only if the official client is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.interop.records import Recorder
from tests.support.controller import BIN, Controller, running
from tests.support.official import CONFIG, Official

PYTHON = os.environ.get("FAL_INTEROP_PYTHON")
PROTO_PYTHON = os.environ.get("FAL_PROTO_PYTHON", "python")
SAMPLES = Path(__file__).parent / "samples"

# `make test-interop` creates the official packages' environment and names it; these tests need it.
collect_ignore_glob = [] if PYTHON else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and the recorder in the first process."""
    config.addinivalue_line("markers", "covers(*commands): which commands of the official packages a test shows")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder({}), "interop-recorder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Attach each test's commands to its report, for any process."""
    for item in items:
        for mark in item.iter_markers("covers"):
            item.user_properties += [("covers", command) for command in mark.args]


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the interpreter with the official packages."""
    assert PYTHON is not None
    return Path(PYTHON).absolute()


@pytest.fixture(scope="session", params=["1.20", "1.50", "1.70", "1.80"])
def older(request: pytest.FixtureRequest, python: Path) -> tuple[str, Path]:
    """Return the version of an older published client, and its interpreter."""
    return request.param, python.parents[2] / f"interop-{request.param}-venv" / "bin" / "python"


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Return a controller, started once for each test process."""
    with running(tmp_path_factory.mktemp("controller"), "--gpu", "GPU-H100=2", isolation="") as controller:
        yield controller


@pytest.fixture(scope="session")
def official(controller: Controller, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Return the official client with the admin key. Our `fal up` has used its home."""
    home = tmp_path_factory.mktemp("official-home")
    official = Official(python=python, home=home, host=controller.host, key=controller.key)
    (home / ".fal" / "config.toml").parent.mkdir()
    (home / ".fal" / "config.toml").write_text(CONFIG)
    up_was_here(controller, home)
    return official


def up_was_here(controller: Controller, home: Path) -> None:
    """Run our `fal up`, which writes a profile of the running controller."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "FAL_STATE_DIR": str(controller.state_dir)}
    done = subprocess.run([BIN / "fal", "up"], env=environment, capture_output=True, text=True, check=True)
    assert "profile    local (current)" in done.stdout


@pytest.fixture(scope="session")
def tiny(official: Official) -> str:
    """Return the name of an app that the official client deployed. Tests call it but do not change it."""
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "tiny", "--auth", "public")
    return "tiny"


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Return a controller with TLS only."""
    with running(tmp_path_factory.mktemp("secure"), "--tls", isolation="") as controller:
        yield controller


@pytest.fixture(scope="session")
def client(secure: Controller, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Return the official packages with an app deployed over TLS. The packages trust the controller's authority."""
    authority = str(secure.state_dir / "tls" / "ca.pem")
    extra = {
        "ISOLATE_TEST_MODE": "0",
        "SSL_CERT_FILE": authority,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": authority,
    }
    home = tmp_path_factory.mktemp("secure-home")
    client = Official(python=python, home=home, host=f"localhost:{secure.port}", key=secure.key, extra=extra)
    client.fal("deploy", SAMPLES / "tiny.py", "--app-name", "tiny")
    return client
