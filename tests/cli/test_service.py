"""`fal up --install` and `fal down --uninstall`: a systemd unit. The systemctl is a fake."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys

import pytest

from fal_cli.controller_process import find_controller, stop
from fal_cli.main import main

# Starts and stops the unit's command, and records its calls.
_SYSTEMCTL = """\
#!{python}
import pathlib, os, shlex, signal, subprocess, sys
home = pathlib.Path({home!r})
with (home / "asked").open("a") as asked:
    print(*sys.argv[1:], file=asked)
if (home / "refuse").exists() and "enable" in sys.argv:
    sys.exit("Failed to enable unit: access denied")
if "enable" in sys.argv:
    unit = (home / ".config/systemd/user" / sys.argv[-1]).read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).partition("=")[2]
    process = subprocess.Popen(shlex.split(command), start_new_session=True, stderr=subprocess.DEVNULL)
    (home / "pid").write_text(str(process.pid))
if "disable" in sys.argv:
    try:
        os.kill(int((home / "pid").read_text()), signal.SIGTERM)
    except ProcessLookupError:
        pass
"""


@pytest.fixture
def user(home, monkeypatch):
    """Be an ordinary user, with a systemctl and a loginctl."""
    programs = home / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(_SYSTEMCTL.format(python=sys.executable, home=str(home)))
    (programs / "loginctl").write_text("#!/bin/sh\n")
    for program in programs.iterdir():
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("FAL_STATE_DIR", str(home / "state"))
    yield home
    left = find_controller(home / "state")
    assert left is None or stop(left, timeout_seconds=60)


def test_from_the_installation_to_its_end(user, capsys):
    unit = user / ".config" / "systemd" / "user" / "fal-controller.service"
    assert main(["up", "--install", "--port", "0"]) == 0
    captured = capsys.readouterr()
    assert f"Wrote {unit}" in captured.err
    assert "`fal down --uninstall` stops it and removes fal-controller.service" in captured.out
    assert unit.exists()
    again = main(["up", "--install", "--port", "0"])
    assert (again, "`fal down --keep-runners` makes room" in capsys.readouterr().err) == (1, True)
    assert main(["down", "--uninstall", "--now"]) == 0
    said = capsys.readouterr().err
    assert f"removed {unit}" in said
    assert "Stopping the controller" in said
    assert "It waits for" not in said
    assert not unit.exists()
    assert (user / "asked").read_text().splitlines() == [
        "--user show-environment",
        "--user daemon-reload",
        "--user enable --now fal-controller.service",
        "--user disable --now fal-controller.service",
        "--user daemon-reload",
    ]
    assert main(["down", "--uninstall"]) == 1
    assert "no unit is installed" in capsys.readouterr().err


def test_one_that_systemd_refuses_leaves_nothing(user, capsys):
    (user / "refuse").touch()
    assert main(["up", "--install", "--port", "0"]) == 1
    assert "access denied" in capsys.readouterr().err
    assert not list((user / ".config" / "systemd" / "user").iterdir())


def test_the_unit(home, monkeypatch, capsys):
    state = home / 'a "b" $c %d'
    assert main(["up", "--install", "--print", "--state-dir", str(state), "--gpu", "GPU-H100=2"]) == 0
    captured = capsys.readouterr()
    assert "systemctl" in captured.err
    assert not state.exists()
    for line in ("Delegate=yes", "KillMode=process", "Type=exec"):
        assert line in captured.out.splitlines()
    assert '"--gpu=GPU-H100=2"' in captured.out
    assert 'a \\"b\\" $$c %%d" "' in captured.out
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:
        unit = home / "fal-controller.service"
        unit.write_text(captured.out)
        state.mkdir()
        done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, "fal-controller" in done.stderr) == (0, False), done.stderr


def test_print_alone_is_a_mistake(home, capsys):
    assert main(["up", "--print", "--state-dir", str(home / "state")]) == 2
    assert "--print goes with --install" in capsys.readouterr().err
