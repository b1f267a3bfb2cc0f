"""`fal up`, `down`, `status` and `env`, with a real controller."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fal.api import NodeInfo
from fal.config import edit, load
from fal_cli.commands.up import machine_lines
from fal_cli.controller_process import find_controller, stop
from fal_cli.main import main

FAL = [sys.executable, "-m", "fal_cli"]
# This process, described as a controller.
HERE = {
    "pid": os.getpid(),
    "started_ticks": int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
    "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    "host": "127.0.0.1",
    "port": 1,
    "grpc_port": 2,
    "version": "0",
}


def fal(*arguments):
    return subprocess.run([*FAL, *arguments], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def state_dir(tmp_path, monkeypatch):
    """Provide a state directory, and end its controller after the test."""
    found = tmp_path / "state"
    monkeypatch.setenv("FAL_STATE_DIR", str(found))
    yield found
    left = find_controller(found)
    assert left is None or stop(left, timeout_seconds=60)


def exported(text):
    return dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))


def test_with_tls_this_client_and_the_exports_trust_the_local_authority(state_dir, capsys, monkeypatch):
    done = fal("up", "--detach", "--port", "0", "--tls", "--tls-name", "box.example")
    assert done.returncode == 0, done.stderr
    controller = find_controller(state_dir)
    assert controller is not None
    assert controller.ca_file is not None
    assert controller.url == f"https://localhost:{controller.port}"
    assert controller.url in done.stdout
    assert f"SSL_CERT_FILE={controller.bundle}" in done.stdout
    config = load()
    assert config.setting("local", "host") == controller.url
    assert config.setting("local", "ca_file") == str(controller.ca_file)
    assert main(["keys", "list", "--json"]) == 0
    capsys.readouterr()

    assert main(["env"]) == 0
    variables = exported(capsys.readouterr().out)
    assert variables["FAL_GRPC_HOST"] == f"localhost:{controller.port}"
    assert variables["SSL_CERT_FILE"] == str(controller.bundle)
    assert "ISOLATE_TEST_MODE" not in variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["keys", "list", "--json"]) == 0
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == controller.url

    assert main(["down"]) == 0
    again = fal("up", "--detach", "--port", "0")
    assert again.returncode == 0, again.stderr
    assert load().setting("local", "ca_file") is None


def test_from_up_to_down(state_dir, capsys):
    done = fal("up", "--detach", "--port", "0", "--region", "us-east")
    assert done.returncode == 0, done.stderr
    assert "The controller is up" in done.stdout
    assert "\n  region     us-east\n" in done.stdout
    assert "Starting the controller" in done.stderr
    controller = find_controller(state_dir)
    assert controller is not None
    assert controller.host in done.stdout

    config = load()
    assert config.current_profile == "local"
    assert config.setting("local", "host") == controller.host
    assert not config.path.exists(), "that is the published client's file"
    assert config.own_path.stat().st_mode & 0o777 == 0o600

    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["running"] is True
    assert status["pid"] == controller.pid
    assert status["url"] == f"http://127.0.0.1:{controller.port}"
    assert (status["apps"], status["runners"]) == (0, 0)
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert f"running (pid {controller.pid})" in shown
    assert "\nRegion:      us-east\n" in shown

    assert main(["env"]) == 0
    variables = exported(capsys.readouterr().out)
    assert variables["FAL_GRPC_HOST"] == variables["FAL_RUN_HOST"] == controller.host
    assert variables["FAL_KEY"] == controller.key()
    assert variables["ISOLATE_TEST_MODE"] == "1"

    assert main(["secrets", "set", "A=1"]) == 0
    assert main(["secrets", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["secrets"][0]["name"] == "A"

    again = fal("up", "-d")
    assert again.returncode == 0
    assert f"A controller (pid {controller.pid}) is already running on {state_dir}" in again.stderr
    assert controller.host in again.stdout

    assert main(["down"]) == 0
    assert find_controller(state_dir) is None
    assert main(["down"]) == 0
    assert "No controller runs" in capsys.readouterr().err


def test_nobody_is_locked_out(state_dir, capsys):
    assert fal("up", "--detach", "--port", "0").returncode == 0
    controller = find_controller(state_dir)
    assert controller is not None
    assert main(["profile", "delete", "local"]) == 0
    assert fal("up", "-d").returncode == 0
    assert load().current_profile == "local"
    assert main(["keys", "create", "--scope", "ADMIN"]) == 0
    assert main(["keys", "revoke", controller.key().partition(":")[0]]) == 0
    capsys.readouterr()

    assert main(["status", "--json"]) == 0, "it runs, whatever the key is"
    status = json.loads(capsys.readouterr().out)
    assert (status["running"], status["apps"]) == (True, 0), "the owner needs no key for that"
    refused = fal("up", "-d")
    assert refused.returncode == 0
    assert "`fal up --new-key` makes one" in refused.stderr
    assert fal("up", "-d", "--new-key").returncode == 0
    again = find_controller(state_dir)
    assert again is not None
    assert again.pid == controller.pid, "it runs on"
    assert main(["keys", "list"]) == 0

    (state_dir / "admin.key").unlink()
    without = fal("up", "-d")
    assert without.returncode == 0
    assert "The profile keeps the key that it has" in without.stderr
    assert main(["keys", "list"]) == 0
    assert main(["status"]) == 0


@pytest.mark.parametrize("detached", [True, False])
def test_a_profile_that_cannot_be_written_stops_nothing(state_dir, tmp_path, monkeypatch, detached):
    (tmp_path / "file").write_text("no directory, so no profile can be below it")
    monkeypatch.setenv("FAL_CONFIG_PATH", str(tmp_path / "file" / "config.toml"))
    if detached:
        up = fal("up", "--detach", "--port", "0")
        assert up.returncode == 0
        stdout, stderr = up.stdout, up.stderr
    else:
        process = subprocess.Popen(
            [*FAL, "up", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        head = list(iter(process.stdout.readline, "Try next:\n"))
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
        stdout = "".join(head) + rest
    assert "its profile could not be written" in stderr
    assert "The controller is up" in stdout
    assert 'profile    none; `eval "$(fal env' in stdout
    assert "Traceback" not in stderr
    if detached:
        assert find_controller(state_dir) is not None


def test_the_greeting_and_the_doctor_name_trusted_networks(state_dir):
    up = fal("up", "--detach", "--port", "0", "--trusted-network", "10.1.0.0/24", "--trusted-network", "fd00::/8")
    assert "  trusted    10.1.0.0/24, fd00::/8: requests to nodes there go without TLS\n" in up.stdout
    assert "trusted network: 10.1.0.0/24, fd00::/8: no node is reached there" in fal("doctor").stdout


def test_each_state_directory_has_a_profile_of_its_own(state_dir, tmp_path):
    assert fal("up", "-d", "--port", "0").returncode == 0
    first = load().setting("local", "host")
    second = fal("up", "-d", "--port", "0", "--state-dir", str(tmp_path / "second"))
    assert f"The profile local belongs to {state_dir}, so this controller gets the profile local-2" in second.stderr
    assert "FAL_PROFILE=local-2 fal runners list" in second.stdout
    assert fal("down", "--state-dir", str(tmp_path / "second")).returncode == 0
    again = fal("up", "-d", "--port", "0", "--state-dir", str(tmp_path / "second"))
    assert "belongs to" not in again.stderr
    config = load()
    assert config.setting("local", "host") == first
    assert (list(config.profiles), config.current_profile) == (["local", "local-2"], "local")
    assert fal("down", "--state-dir", str(tmp_path / "second")).returncode == 0


def test_what_an_earlier_version_wrote_leaves_the_published_client_s_file(state_dir):
    assert fal("up", "-d", "--port", "0").returncode == 0
    config = load()
    config.own_path.rename(config.path)
    again = fal("up", "-d")
    assert f"The profile local moved from {config.path} to {config.own_path}" in again.stderr
    assert "profile    local (current)" in again.stdout
    assert config.path.read_text().strip() == ""
    assert fal("keys", "list").returncode == 0


def test_each_of_several_machines_is_named():
    node = NodeInfo(
        name="box2", trouble="", cores=1, memory_bytes=1, reserved_bytes=0, gpus=(), bounds={"memory": "cgroup v2"}
    )
    assert machine_lines(node, named=False) == "  limits     memory: cgroup v2\n"
    assert machine_lines(node, named=True) == "  limits     box2: memory: cgroup v2\n"
    there = replace(node, region="us-east")
    assert machine_lines(there, named=True) == "  region     box2: us-east\n  limits     box2: memory: cgroup v2\n"


def test_in_the_foreground_until_ctrl_c(state_dir):
    with edit() as config:
        config.create_profile("work")
        config.set_current("work")
    process = subprocess.Popen([*FAL, "up", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0]
    greeting = os.read(process.stdout.fileno(), 65536).decode()
    assert "Ctrl-C stops it" in greeting
    assert "FAL_PROFILE=local fal runners list" in greeting
    assert load().current_profile == "work"
    assert "local" in load().profiles
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert find_controller(state_dir) is None


@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_a_start_that_fails_says_why(state_dir, flags):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = fal("up", *flags, "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert done.stderr.count("Error: ") == 1


@pytest.mark.parametrize("command", [["up"], ["up", "--detach"], ["node", "up"]])
def test_an_error_fits_the_terminal(state_dir, tmp_path, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FAL_NODE_DIR", str(tmp_path / "node"))
    ours, theirs = os.openpty()
    with socket.socket() as taken, os.fdopen(ours, "rb", buffering=0) as terminal:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with subprocess.Popen(
            [*FAL, *command, "--host", "127.0.0.1", "--port", str(port), "--isolation", "view"], stderr=theirs
        ) as process:
            os.close(theirs)
            text = "".join(pieces(terminal))
    assert process.returncode == 1
    error = re.sub(r"\x1b\[[0-9;]*m", "", text).partition("Error: ")[2].splitlines()
    assert f"127.0.0.1:{port} cannot be listened on" in " ".join(error)
    assert max(len(line) for line in error if " " in line) <= 60, "a path may be longer"


def pieces(terminal):
    """Yield what is written to a terminal until it is closed."""
    with suppress(OSError):  # the kernel's way to say that
        while piece := terminal.read(1 << 16):
            yield piece.decode()


def test_nothing_runs(state_dir, capsys):
    assert main(["status"]) == 1
    assert "no controller runs" in capsys.readouterr().err
    assert main(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"running": False, "state_dir": str(state_dir)}
    assert main(["env"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "`fal up -d` starts one" in captured.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"pid": 1, "started_ticks": -1, "port": 1, "grpc_port": 2, "version": "0"}',
            "no controller",
        ),
        (json.dumps({**HERE, "started_ticks": -1}), "no controller"),
        (json.dumps({**HERE, "boot_id": "00000000-0000-0000-0000-000000000000"}), "no controller"),
        ("{", "no controller"),
        ("", "no controller"),
        ("[]", "no controller"),
        ("\x00" * 200, "no controller"),
        ("{}", "no controller"),
    ],
)
def test_the_file_of_another_process_is_not_taken_for_a_controller(tmp_path, text, message, capsys):
    (tmp_path / "controller.json").write_text(text)
    assert main(["status", "--state-dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_the_file_of_a_running_process_is_taken_for_a_controller(tmp_path):
    path = tmp_path / "controller.json"
    for stored in (HERE, {name: value for name, value in HERE.items() if name != "boot_id"}):
        path.write_text(json.dumps(stored))
        found = find_controller(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


def test_a_missing_extra_is_named():
    script = (
        "import sys, importlib.util as u; found = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'sqlalchemy' else found(name, *rest);"
        "from fal_cli.main import main; sys.exit(main(['up', '-d']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        "fal up needs the controller extra (sqlalchemy is missing): pip install 'fal-grpc[controller]'" in done.stderr
    )
