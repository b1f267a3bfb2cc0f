"""Options that are right each by itself, and wrong together. They are wrong usage, and nothing starts."""

from __future__ import annotations

import pytest

from fal_cli.main import main as fal
from fal_server.composition.main import main as controller
from fal_server.composition.node import main as node

CONFLICTS = [
    (["--port=7556", "--grpc-port=7556"], "--port and --grpc-port are both 7556"),
    (["--gpu=GPU-A=1", "--gpu=gpu-a=2"], "--gpu names GPU-A twice: give each label once"),
    (["--gpu=GPU-A", "--gpu=GPU-A"], "--gpu names GPU-A twice"),
    (["--content=s3://bucket", "--content-dir=/mnt"], "two places for the same: leave one out"),
    (["--standby", "--content-dir=/mnt"], "--standby needs the PostgreSQL database"),
    (["--standby", "--database=postgresql://me@host/fal"], "--standby needs --content, a bucket, or --content-dir"),
    (["--ray-address=10.0.0.4:6379"], "go with --engine ray"),
    (["--ray-python=/usr/bin/python3"], "go with --engine ray"),
    (["--engine-grows=60"], "go with --engine ray"),
    (["--isolation=none", "--require-isolation=view"], "--isolation none is weaker than --require-isolation view"),
    (["--tls-cert=/cert.pem"], "--tls-cert and --tls-key belong together"),
    (["--tls-key=/key.pem", "--tls"], "--tls-cert and --tls-key belong together"),
    (["--tls-client-ca=/ca.pem"], "--tls-client-ca needs TLS: add --tls"),
    *(([f"--host={host}"], "add --tls") for host in ("0.0.0.0", "::", "192.0.2.1", "box.example")),
]


@pytest.fixture(autouse=True)
def no_database(monkeypatch):
    monkeypatch.delenv("FAL_DATABASE_URL", raising=False)


@pytest.mark.parametrize(("arguments", "message"), CONFLICTS)
@pytest.mark.parametrize("command", [["up"], ["up", "--detach"], ["up", "--install", "--print"]])
def test_fal_up_refuses_them(command, arguments, message, tmp_path, capsys):
    state_dir = tmp_path / "state"
    assert fal([*command, "--state-dir", str(state_dir), *arguments]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("Error: "), message in printed.err) == ("", 1, True), printed.err
    assert not state_dir.exists()


@pytest.mark.parametrize(("arguments", "message"), CONFLICTS)
def test_the_controller_refuses_them(arguments, message, tmp_path, capsys):
    state_dir = tmp_path / "state"
    assert controller(["--state-dir", str(state_dir), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not state_dir.exists()


def test_a_standby_may_have_its_database_from_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FAL_DATABASE_URL", "postgresql://me:secret@host/fal")
    assert controller(["--state-dir", str(tmp_path / "state"), "--standby"]) == 2
    assert "--standby needs --content" in capsys.readouterr().err


def test_a_node_refuses_them(tmp_path, capsys):
    gpus = ["--gpu=GPU-A=1", "--gpu=GPU-A=2"]
    assert fal(["node", "up", "--node-dir", str(tmp_path / "node"), *gpus]) == 2
    assert node(["--state-dir", str(tmp_path / "node"), *gpus]) == 2
    assert capsys.readouterr().err.count("Error: --gpu names GPU-A twice") == 2
    assert not (tmp_path / "node").exists()
