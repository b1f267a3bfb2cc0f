"""The systemd unit that runs a controller: its text, installation and removal."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fal_cli.controller_process import default_state_dir
from fal_cli.exit_codes import CommandError
from fal_cli.presentation.output import print_note

# How long a controller may take to finish requests and runners before systemd kills it.
_STOP_SECONDS = 900
_UNIT = """\
[Unit]
Description=fal controller on {state_dir}
Documentation=https://github.com/fal-grpc/fal-grpc/tree/main/docs
{after}
[Service]
Type=exec
ExecStart={command}
WorkingDirectory={working_dir}
Environment={home} {path}
# Settings that are secret, such as FAL_DATABASE_URL: a file that only its owner may read.
EnvironmentFile=-{environment_file}
Restart=on-failure
RestartSec=2
# The controller makes a control group for each runner, and ends its runners itself: they outlive its crash.
Delegate=yes
KillMode=process
TimeoutStopSec={stop_seconds}
LimitNOFILE=1048576

[Install]
WantedBy={target}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A unit for a state directory.

    Attributes:
        state_dir: the directory, absolute.
        system: whether it is a system unit; otherwise it is this user's.
    """

    state_dir: Path
    system: bool

    @classmethod
    def of(cls, state_dir: Path) -> Service:
        """Return a system unit for root. Anybody else gets a user unit."""
        return cls(state_dir=state_dir.absolute(), system=os.geteuid() == 0)

    @property
    def name(self) -> str:
        """The unit's name, which distinguishes state directories."""
        if self.state_dir == default_state_dir().absolute():
            return "fal-controller.service"
        return f"fal-controller-{hashlib.sha256(bytes(self.state_dir)).hexdigest()[:8]}.service"

    @property
    def path(self) -> Path:
        """The unit's file."""
        if self.system:
            return Path("/etc/systemd/system") / self.name
        return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user" / self.name

    def text(self, arguments: Sequence[str]) -> str:
        """Return the unit for a controller with these arguments."""
        command = [sys.executable, "-m", "fal_server", *arguments, "--log-file", str(self.state_dir / "controller.log")]
        after = "After=network-online.target\nWants=network-online.target\n" if self.system else ""
        return _UNIT.format(
            state_dir=str(self.state_dir).replace("%", "%%"),
            after=after,
            command=" ".join(_quoted(word).replace("$", "$$") for word in command),
            working_dir=str(self.state_dir).replace("%", "%%"),
            home=_quoted(f"HOME={Path.home()}"),
            path=_quoted(f"PATH={os.environ.get('PATH', os.defpath)}"),
            environment_file=str(self.state_dir / "controller.env").replace("%", "%%"),
            stop_seconds=_STOP_SECONDS,
            target="multi-user.target" if self.system else "default.target",
        )

    def start_commands(self) -> list[list[str]]:
        """Return the commands that load and start the unit. It starts now and at each boot."""
        # Without lingering a user's units end with the last session.
        linger = [] if self.system else [["loginctl", "enable-linger"]]
        return [*linger, self._systemctl("daemon-reload"), self._systemctl("enable", "--now", self.name)]

    def install(self, arguments: Sequence[str]) -> None:
        """Write the unit and start it.

        Raises:
            CommandError: systemd does not run here or refuses; nothing is left behind.
        """
        _run(self._systemctl("show-environment"))
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.text(arguments))
        except OSError as error:
            raise CommandError(f"{self.path} cannot be written: {error.strerror}") from None
        print_note(f"Wrote {self.path}.")
        try:
            for command in self.start_commands():
                _run(command)
        except CommandError:
            self.path.unlink()
            print_note(f"Removed {self.path} again.")
            raise

    def require_installed(self) -> None:
        """Raise a CommandError if the unit is not installed."""
        if not self.path.exists():
            raise CommandError(f"no unit is installed for {self.state_dir}: there is no {self.path}")

    def uninstall(self) -> None:
        """Stop the unit, and remove it.

        Raises:
            CommandError: systemd refuses.
        """
        _run(self._systemctl("disable", "--now", self.name))
        self.path.unlink()
        _run(self._systemctl("daemon-reload"))
        print_note(f"Disabled {self.name} and removed {self.path}. The data in {self.state_dir} stays.")

    def _systemctl(self, *words: str) -> list[str]:
        return ["systemctl", *([] if self.system else ["--user"]), *words]


def _quoted(word: str) -> str:
    """Quote a word for a unit: see systemd.syntax(7) and systemd.unit(5)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"'


def _run(command: Sequence[str]) -> None:
    """Run a systemd program, and raise its error message if it fails."""
    line = " ".join(command)
    print_note(f"$ {line}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise CommandError(f"there is no {command[0]} here: `fal up --install --print` shows the unit") from None
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise CommandError(f"{line}: {said}\n`fal up --install --print` shows the unit.")
