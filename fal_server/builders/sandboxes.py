"""Runs a build's programs in a sandbox, within limits. It removes all traces."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import fal_runner
from fal_runner.isolation.interpreters import needed, place
from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.sandbox import (
    NO_VIEW,
    READ,
    SANDBOX_VARIABLE,
    TEMPORARY,
    VARIABLES_VARIABLE,
    WRITE,
    Place,
    written,
)
from fal_runner.process.groups import GROUPS_VARIABLE
from fal_runner.process.removal import discard_tree
from fal_server.builders.process import run_lines
from fal_server.builders.watch import Watch
from fal_server.core.builds import BuildLimits
from fal_server.core.machines import RunnerLimits
from fal_server.ports import Bound, Bounds

_LAUNCH = Path(fal_runner.__file__).parent / "process" / "launch.py"
_HOME, _SEEN_HOME = "home", "/build"
_SHARE = 100  # the weight on a busy machine, as of one core
# Variables of an installer that may name files of this machine: packages, indexes, certificates, passwords, settings.
_NAME_FILES = re.compile(
    r"NETRC|SSL_CERT_(?:FILE|DIR)|\w+_CA_BUNDLE|GIT_SSL_CAINFO|CUDA_HOME|CC|CXX|"
    r"UV_(?:CONFIG_FILE|CONSTRAINT|OVERRIDE|FIND_LINKS|(?:DEFAULT_|EXTRA_)?INDEX(?:_URL)?)"
)
_PATH = re.compile(r"(?:^|[\s,;=])(?:file://(?:localhost)?)?(/[^\s,;#]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSandboxes:
    """Creates a sandbox for each build. At weaker levels, its programs see the whole machine.

    Attributes:
        limits: the limits of each build.
        bounds: enforces the limits of memory and processes if it can; otherwise they are measured.
        hidden: never in a sandbox, even if a variable of the operator names it, such as the state directory.
    """

    isolation: Isolation
    limits: BuildLimits = field(default_factory=BuildLimits)
    bounds: Bounds | None = None
    hidden: Sequence[Path] = ()

    @asynccontextmanager
    async def open(
        self, work: Path, name: str, made: Sequence[Path], shared: Sequence[Path]
    ) -> AsyncGenerator[BuildSandbox]:
        """Open a sandbox for one build's programs, which end with the block.

        Args:
            work: the build's own directory, created and deleted here.
            name: the build's unique name, of letters, digits and hyphens.
            made: empty directories that the build fills.
            shared: other directories that it writes to; the limit covers what it adds there.

        Raises:
            FailedPrecondition: the build exceeded a limit.
            OSError: the disk cannot be written to.
        """
        try:
            for part in (work, work / TEMPORARY, work / _HOME):
                part.mkdir(mode=0o700)
            limits = RunnerLimits(
                machine_type="",
                memory_mib=self.limits.memory_mib,
                processes=self.limits.processes,
                cpu_weight=_SHARE,
            )
            if self.bounds is None:
                async with self._watched(work, Bound(), made, shared) as sandbox:
                    yield sandbox
            else:
                async with (
                    self.bounds.bounding(name, work, limits) as bound,
                    self._watched(work, bound, made, shared) as sandbox,
                ):
                    yield sandbox
        finally:
            await asyncio.shield(asyncio.to_thread(discard_tree, work))

    @asynccontextmanager
    async def _watched(
        self, work: Path, bound: Bound, made: Sequence[Path], shared: Sequence[Path]
    ) -> AsyncGenerator[BuildSandbox]:
        watch = Watch(self.limits, bound.memory, [work, *made], shared)
        async with watch.enforcing():
            yield BuildSandbox(isolation=self.isolation, work=work, bound=bound, hidden=self.hidden, watch=watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSandbox:
    """Runs the programs of one build."""

    isolation: Isolation
    work: Path
    bound: Bound
    hidden: Sequence[Path]
    watch: Watch

    @property
    def is_closed(self) -> bool:
        """Whether there is a sandbox, not a view of the whole machine."""
        return self.isolation is Isolation.PROCESS

    @property
    def _home(self) -> str:
        return _SEEN_HOME if self.is_closed else str(self.work / _HOME)

    async def run(
        self,
        command: Sequence[str],
        places: Sequence[Place],
        *,
        variables: Mapping[str, str],
        line: Callable[[str], None],
        stdin: str = "",
    ) -> int:
        """Run a program to its end, as `run_lines` does. Nothing that it started is left in the sandbox then.

        Args:
            places: entries of the sandbox, besides those of every sandbox and the files that variables name.
            variables: its environment except HOME and TMPDIR, which are the build's own.
        """
        sandbox = self._described([*places, *self._named_by(variables)])
        own = {
            "HOME": self._home,
            "TMPDIR": "/tmp" if self.is_closed else str(self.work / TEMPORARY),  # noqa: S108 - that of the sandbox
        }
        handle = os.memfd_create("fal-variables")
        try:
            entries = (f"{name}={value}\0" for name, value in {**variables, **own}.items())
            os.write(handle, os.fsencode("".join(entries)))
            os.lseek(handle, 0, os.SEEK_SET)
            return await run_lines(
                [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), "pipes", self._home, *command],
                cwd=self.work,
                variables={
                    "PATH": os.defpath,
                    "LANG": "C.UTF-8",
                    SANDBOX_VARIABLE: sandbox,
                    VARIABLES_VARIABLE: str(handle),
                    GROUPS_VARIABLE: ":".join(map(str, self.bound.groups)),
                },
                line=line,
                stdin=stdin,
                keep_open=[handle],
                started=self.watch.follow,
            )
        finally:
            os.close(handle)

    def _described(self, places: Sequence[Place]) -> str:
        if not self.is_closed:
            return NO_VIEW
        own = [place(WRITE, self.work / TEMPORARY, "/tmp"), place(WRITE, self.work / _HOME, _SEEN_HOME)]  # noqa: S108
        return written([*own, *needed(places)])

    def _named_by(self, variables: Mapping[str, str]) -> Iterator[Place]:
        for name, value in variables.items():
            if _NAME_FILES.fullmatch(name):
                for path in _paths(value, settings=name == "UV_CONFIG_FILE"):
                    if path.exists() and not self._holds_secrets(path):
                        yield place(READ, path)

    def _holds_secrets(self, path: Path) -> bool:
        """Return whether the path shows the whole machine or a hidden path."""
        real = path.resolve()
        if real == Path("/"):
            return True
        return real.is_dir() and any(each.resolve().is_relative_to(real) for each in self.hidden)


def _paths(value: str, *, settings: bool) -> Iterator[Path]:
    """Yield the absolute paths in a variable. If it names uv's settings, also yield those in that file."""
    for match in _PATH.finditer(value):
        yield Path(match[1])
        if settings:
            with suppress(OSError, tomllib.TOMLDecodeError):  # uv reports the error itself
                for text in _texts(tomllib.loads(Path(match[1]).read_text())):
                    yield from _paths(text, settings=False)


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            for each in value.values():
                yield from _texts(each)
        case _:
            return
