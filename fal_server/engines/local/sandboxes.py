"""Lists what runners see of this machine, by the level of isolation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fal_runner
from fal_runner.isolation.interpreters import needed, of_interpreter, place
from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.sandbox import (
    CODE,
    DATA,
    DEVICE,
    DEVICES,
    NO_VIEW,
    PARTS,
    READ,
    TEMPORARY,
    WRITE,
    Place,
    has_sandbox,
    written,
)
from fal_server.core.identity import LOCAL, AccountId
from fal_server.engines.local.prepared import PreparedLaunch

_WORKER = Path(fal_runner.__file__).parent / "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandboxes:
    """Describes what a runner sees. No path of this machine comes from an app.

    Attributes:
        isolation: the level of every runner that does not run in a container.
        home: the HOME of runners of the machine's own account; other accounts' HOMEs are beside it.
        data: returns the directory that is an account's /data; None if there is none.
        readable: further paths to read, such as a file of trusted authorities.
        calls: the directory of the socket on which runners call the controller. It can only be read: who may write
            there can replace the socket, and gets the keys of all accounts' runners.
        writable: further paths to write.
    """

    isolation: Isolation
    home: Path
    data: Callable[[AccountId], Path] | None = None
    calls: Path | None = None
    readable: Sequence[Path] = ()
    writable: Sequence[Path] = ()

    def home_of(self, account: AccountId) -> Path:
        """Return the HOME of an account's runners."""
        return self.home if account == LOCAL else self.home.with_name("homes") / account

    def of(
        self, account: AccountId, python: Path, imports_file: Path | None = None, devices: Sequence[str] = ()
    ) -> str:
        """Describe the sandbox of an environment's runners; see RunnerSpec.room.

        Args:
            python: the interpreter of the environment.
            imports_file: lists what the environment's runners import.
            devices: the device files, below /dev, that these runners have alone.

        Raises:
            ValueError: a path cannot be in the list.
        """
        match self.isolation:
            case Isolation.NONE:
                return NO_VIEW
            case Isolation.VIEW:
                return ""
            case Isolation.PROCESS:
                own = [(DEVICE, f"{DEVICES}{name}", f"{DEVICES}{name}") for name in devices]
                return written([*self._places(account, python, imports_file), *own])

    def _places(self, account: AccountId, python: Path, imports_file: Path | None) -> Iterator[Place]:
        if self.data is not None:
            yield place(WRITE, self.data(account), DATA)
        yield place(WRITE, self.home_of(account))
        for path in self.writable:
            yield place(WRITE, path)
        profiler = Path(sys.executable).with_name("py-spy")
        calls = [] if self.calls is None else [self.calls]
        read = [_WORKER, *calls, *self.readable, profiler, *([imports_file.parent] if imports_file is not None else [])]
        yield from needed([*of_interpreter(python), *(place(READ, path) for path in read)])


def lay_out_sandbox(directory: Path, launch: PreparedLaunch) -> None:
    """Create a sandbox's parts in a runner's directory. They include the code that the worker loads."""
    for name in PARTS:
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    (directory / TEMPORARY).chmod(0o1777)
    for name, path in _code(launch).items():
        _link(path, directory / CODE / name)


def code_paths(directory: Path, launch: PreparedLaunch, sandbox: str) -> Mapping[str, Path]:
    """Return the paths of the worker's pickles. They are beside its files if it has a sandbox."""
    found = _code(launch)
    return {name: directory / CODE / name for name in found} if has_sandbox(sandbox) else found


def _code(launch: PreparedLaunch) -> dict[str, Path]:
    paths = {"function": launch.function, "setup": launch.setup}
    return {name: path for name, path in paths.items() if path is not None}


def _link(path: Path, to: Path) -> None:
    """Link a file. The sandbox has it read-only, so it need not be a copy."""
    try:
        os.link(path.resolve(), to)
    except OSError:  # on another file system, or one without hard links
        to.write_bytes(path.read_bytes())
