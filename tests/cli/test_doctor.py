"""`fal doctor`: its findings and its exit codes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import grpc
import pytest

from fal.config import edit
from fal_cli.main import main
from fal_cli.version import VERSION
from fal_grpc.v1 import app_pb2
from tests.support.containers import make_engine
from tests.support.controller import ROOT


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Shorten PATH, because uv starts every Python that it finds."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("FAL_CONTAINER_ENGINE", "none")


def test_how_containers_run_is_said(controller, monkeypatch, diagnosis, tmp_path):
    monkeypatch.setenv("FAL_KEY", "kid:very-secret")
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult()
    [none] = [check for check in diagnosis()[1]["checks"] if check["name"] == "containers"]
    assert (none["status"], none["detail"]) == ("note", "FAL_CONTAINER_ENGINE is none")
    engine = make_engine(tmp_path / "bin")
    monkeypatch.setenv("FAL_CONTAINER_ENGINE", str(engine.path))
    monkeypatch.setenv("CONTAINERS_RECORD", str(engine.record))
    [works] = [check for check in diagnosis()[1]["checks"] if check["name"] == "containers"]
    assert (works["status"], works["fix"]) == ("ok", "")
    assert works["detail"].startswith("podman 9.9.9 runs containers; memory limits")


@pytest.fixture
def diagnosis(home, capsys):
    """Return a function that runs the doctor. It returns the code and the JSON."""

    def run():
        code = main(["doctor", "--json", "--state-dir", str(home / "state")])
        text = capsys.readouterr().out
        assert "very-secret" not in text
        return code, json.loads(text)

    return run


def test_it_knows_every_extra_with_a_module(controller, monkeypatch, diagnosis):
    monkeypatch.setenv("FAL_KEY", "kid:very-secret")
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult()
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    known = {name.removeprefix("extra ") for name in diagnosis()[1] if name.startswith("extra ")}
    assert known == extras.keys() - {"profile"}


def problems(document):
    return {check["name"]: check for check in document["checks"] if check["status"] == "problem"}


def test_all_is_well(controller, monkeypatch, diagnosis):
    monkeypatch.setenv("FAL_KEY", "kid:very-secret")
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult()
    code, document = diagnosis()
    assert (code, document["healthy"], problems(document)) == (0, True, {})
    assert document["fal"] == VERSION
    assert (document["FAL_HOST"], document["FAL_HOST from"]) == (f"127.0.0.1:{controller.port}", "FAL_GRPC_HOST")
    assert (document["FAL_KEY"], document["FAL_KEY from"]) == ("kid", "FAL_KEY")
    names = [check["name"] for check in document["checks"]]
    assert names == [
        *("fal", "settings", "controller", "key", "controller here", "port", "uv", "containers"),
        *("isolation", "cgroup", "disk"),
    ]


def test_a_key_that_may_not_list_apps_is_a_valid_key(controller, diagnosis):
    controller.answers["ListAliases"] = (grpc.StatusCode.PERMISSION_DENIED, "no")
    assert diagnosis()[0] == 0


def test_a_key_that_is_refused(controller, diagnosis):
    controller.answers["ListAliases"] = (grpc.StatusCode.UNAUTHENTICATED, "the key is unknown")
    code, document = diagnosis()
    assert code == 1
    assert list(problems(document)) == ["key"]
    assert "fal profile key" in problems(document)["key"]["fix"]


def test_no_controller(monkeypatch, diagnosis):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FAL_GRPC_HOST", f"127.0.0.1:{bound.getsockname()[1]}")
        monkeypatch.setenv("FAL_KEY", "kid:very-secret")
        code, document = diagnosis()
    assert code == 1
    assert problems(document)["controller"]["fix"] == "`fal up -d` starts a controller here."


def test_no_key_and_settings_that_are_malformed(home, diagnosis):
    code, document = diagnosis()
    assert code == 1
    assert list(problems(document)) == ["key"]
    (home / "config.toml").write_text("not toml")
    code, document = diagnosis()
    assert code == 1
    assert "is not valid TOML" in problems(document)["settings"]["detail"]


def test_the_other_package_in_the_same_environment(controller, tmp_path: Path, monkeypatch, diagnosis):
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult()
    metadata = tmp_path / "packages" / "fal-1.83.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fal\nVersion: 1.83.0\n")
    monkeypatch.syspath_prepend(str(metadata.parent))
    assert Distribution.from_name("fal").version == "1.83.0"
    code, document = diagnosis()
    assert code == 1
    assert "fal 1.83.0 is installed in the same environment" in problems(document)["other package"]["detail"]


def test_people_get_a_line_a_check_with_the_way_to_fix_it(home, capsys):
    assert main(["doctor", "--state-dir", str(home / "state")]) == 1
    shown = capsys.readouterr().out
    assert f"\u2713 fal: {VERSION}" in shown
    assert "\u2717 key: there is none\n    `fal up -d` starts a controller" in shown


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ModuleNotFoundError('No module named uv')", "No module named uv"),
        ("def find_uv_bin(): raise FileNotFoundError('no uv here')", "no uv here"),
        ("def find_uv_bin(): return '/bin/false'", "returned non-zero exit status 1"),
    ],
)
def test_a_machine_without_uv(home, source, said, tmp_path, monkeypatch, diagnosis):
    (tmp_path / "broken" / "uv").mkdir(parents=True)
    (tmp_path / "broken" / "uv" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    monkeypatch.delitem(sys.modules, "uv", raising=False)
    code, document = diagnosis()
    found = problems(document)["uv"]
    assert (code, found["fix"]) == (1, "pip install 'fal-grpc[controller]'")
    assert said in found["detail"]
    monkeypatch.delitem(sys.modules, "uv", raising=False)


def test_the_state_directory_of_the_profile_is_looked_at(home, tmp_path, monkeypatch, capsys):
    with edit() as config:
        config.create_profile("mine")
        config.set("mine", "state_dir", str(tmp_path / "elsewhere"))
        config.set_current("mine")

    def looked_at(*words):
        main(["doctor", "--json", *words])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return next(check["detail"] for check in checks if check["name"] == "controller here")

    monkeypatch.delenv("FAL_STATE_DIR", raising=False)
    assert looked_at() == f"none runs on {tmp_path / 'elsewhere'}"
    assert looked_at("--state-dir", str(tmp_path / "third")) == f"none runs on {tmp_path / 'third'}"
    monkeypatch.setenv("FAL_STATE_DIR", str(tmp_path / "by-variable"))
    assert looked_at() == f"none runs on {tmp_path / 'by-variable'}"


def test_a_disk_that_is_read_only(home, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    steps = 'mount -t tmpfs -o ro none "$1" && exec "$2" -m fal_cli doctor --json --state-dir "$1/state"'
    # A user namespace: whoever runs the tests may mount in it.
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", steps, "sh", str(place), sys.executable]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    disk = problems(json.loads(ran.stdout))["disk"]
    assert disk["detail"] == f"read-only at {place}"
    assert "remount,rw" in disk["fix"]
