"""Machines of a test: network, mount and process namespaces. A bridge joins them, without a way out.

`python -m tests.support.machines COMMAND...` runs a command in a network namespace of its own, in which a test makes
its network. Nothing that listens there is reached from the real one, and everything ends with the command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.support.waiting import until

CONTROLLER = "10.77.0.1"
_ALONE = "FAL_TEST_MACHINES"
# Bash, because the first process of a machine has to reap what ends there. It keeps its own directory, and sees none of
# the other machines' and of the controller's.
_MACHINE = """
set -eu
hostname "$1"
mount --make-rprivate /
mount -t tmpfs none /dev/shm
exec 3<"$3"
mount -t tmpfs none "$2"
mkdir -p "$3"
mount --no-canonicalize --bind /proc/self/fd/3 "$3"
exec 3<&-
echo on
sleep infinity &
wait
"""


def alone() -> bool:
    """Return whether this process runs in a network namespace for tests."""
    return os.environ.get(_ALONE) == str(Path("/proc/self/ns/net").stat().st_ino)


@dataclass
class MachineProcess:
    """A process on a machine.

    Attributes:
        outer: the command that entered the machine, with what the process prints.
        pid: of the process itself, as this process sees it.
    """

    outer: subprocess.Popen[str]
    pid: int

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)
        if number == signal.SIGCONT:
            os.kill(self.outer.pid, number)  # it stops with what it waits for

    def wait(self) -> None:
        """Wait until it ended."""
        self.outer.wait(60)
        if self.outer.stdout is not None:
            self.outer.stdout.close()


class Machine:
    """A machine, which is off at first.

    Args:
        name: its host name.
        address: of its network interface.
        directory: what it has on disk; kept while it is off.
    """

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self._outer: subprocess.Popen[str] | None = None
        self._pid = 0
        self._processes: list[MachineProcess] = []

    def power_on(self) -> None:
        """Start it, with nothing running but its first process."""
        namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = ["bash", "-c", _MACHINE, self.name, self.name, str(self.directory.parent), str(self.directory)]
        self._outer = subprocess.Popen(["unshare", *namespaces, *arguments], stdout=subprocess.PIPE, text=True)
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == "on\n", f"machine {self.name} does not start"
        self._pid = _child(self._outer.pid)
        _ip("link", "add", "name", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _ip("link", "set", "dev", self.name, "master", "machines", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            subprocess.run(["nsenter", "--target", str(self._pid), "--net", "ip", *words], check=True)

    def power_off(self) -> None:
        """End everything on it at once. Nobody on the network hears of it."""
        if self._outer is None:
            return
        self.cut()
        self._outer.kill()  # its first process ends with it, and everything else with that
        self._outer.wait(60)
        while self._processes:
            process = self._processes.pop()
            process.outer.kill()  # the machine ends once it is known that its processes did, and this may be stopped
            process.wait()
        until(lambda: not Path(f"/proc/{self._pid}").exists(), f"the end of machine {self.name}")
        if self._outer.stdout is not None:
            self._outer.stdout.close()
        self._outer = None
        with contextlib.suppress(subprocess.CalledProcessError):  # it goes with the machine, a little later
            _ip("link", "delete", "dev", self.name)

    def cut(self) -> None:
        """Drop everything between it and the others, without a word to either."""
        _ip("link", "set", "dev", self.name, "down")

    def mend(self) -> None:
        """Let it reach the others again."""
        _ip("link", "set", "dev", self.name, "up")

    def popen(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> MachineProcess:
        """Start a process on it."""
        with log.open("a") as errors:
            outer = subprocess.Popen(
                [*self.entering(), *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes.append(MachineProcess(outer, _child(outer.pid)))
        return self._processes[-1]

    def entering(self) -> list[str]:
        """Return what a command that is to run on it starts with."""
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc")  # with --all, only root may enter
        return ["nsenter", "--target", str(self._pid), *namespaces, "--wd=/", "--"]

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command on it."""
        return subprocess.run(
            [*self.entering(), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


class Machines:
    """The machines of a test; this process is the controller's.

    Args:
        directory: where each machine has its own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Machine] = []

    def add(self, name: str) -> Machine:
        """Make a machine, and start it."""
        machine = Machine(name, f"10.77.0.{len(self._made) + 2}", self._directory / name)
        self._made.append(machine)
        machine.power_on()
        return machine

    def end(self) -> None:
        """Switch all of them off."""
        for machine in self._made:
            machine.power_off()


@contextlib.contextmanager
def network(directory: Path) -> Generator[Machines]:
    """Make a network in this process's network namespace.

    Raises:
        AssertionError: that is the real one.
    """
    assert alone(), "machines need a network namespace of their own: run make test-cluster, test-ray or test-setups"
    _ip("link", "add", "machines", "type", "bridge")
    _ip("address", "add", f"{CONTROLLER}/24", "dev", "machines")
    _ip("link", "set", "machines", "up")
    machines = Machines(directory)
    try:
        yield machines
    finally:
        machines.end()
        _ip("link", "delete", "machines")


def main(command: list[str]) -> NoReturn:
    """Replace this process by a command in namespaces of its own."""
    inside = f'ip link set lo up; export {_ALONE}=$(stat -L -c %i /proc/self/ns/net); "$@"; exit $?'
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if not all(shutil.which(program) for program in ("unshare", "nsenter", "ip", "bash")):
        sys.exit("the machines of these tests need unshare, nsenter and ip: on Debian, apt install util-linux iproute2")
    if subprocess.run(["unshare", *user, *namespaces, "true"], check=False).returncode != 0:
        sys.exit("the machines of these tests need root, or namespaces of users (kernel.unprivileged_userns_clone)")
    os.execvp("unshare", ["unshare", *user, *namespaces, "bash", "-c", inside, "bash", *command])


def _child(pid: int) -> int:
    """Wait for the first child of a process, and return it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(until(lambda: children.read_text().split(), f"the child of process {pid}")[0])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])
