"""Runs podman or docker, whichever is installed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fal_runner
from fal_server.builders.process import run_lines
from fal_server.core.containers import EngineOptions

_NAMES = ("podman", "docker")
CHOICE = "FAL_CONTAINER_ENGINE"
CHROOT = "chroot"
"""The isolation of builds that needs least of the machine, and gives least."""
_NAMESPACES = Path(fal_runner.__file__).parent / "isolation" / "engine_namespaces.py"
NO_ENGINE = "none"
"""The choice of no engine at all."""
_ANSWER_SECONDS = 20.0
# An engine gets the variables that name its storage, its service and the way to the network.
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|DBUS_SESSION_BUS_ADDRESS|CONTAINERS?_\w+|DOCKER_\w+|"
    r"BUILDAH_\w+|STORAGE_\w+|REGISTRY_\w+|(?:HTTP|HTTPS|ALL|NO)_PROXY|(?:http|https|all|no)_proxy|"
    r"SSL_CERT_FILE|SSL_CERT_DIR"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """A working engine.

    Attributes:
        version: its name and version.
        variables: its environment variables.
        options: the options that it needs on this machine.
    """

    path: Path
    version: str = ""
    variables: Mapping[str, str] = field(repr=False)
    options: EngineOptions = field(default_factory=EngineOptions)

    async def run(
        self,
        *arguments: str,
        cwd: Path,
        line: Callable[[str], None],
        more: Mapping[str, str] | None = None,
        started: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Run it and return the exit code. `more` are further variables, for secrets."""
        return await run_lines(
            (*apart(self.path, arguments), str(self.path), *self.options.engine, *arguments),
            cwd=cwd,
            variables={**self.variables, **(more or {})},
            line=line,
            started=started,
        )

    async def storage(self) -> Path | None:
        """Return where the engine itself keeps images; None if a service does."""
        if self.path.name == "docker":
            return None
        code, lines = await self.answer("info", "--format", "{{.Store.GraphRoot}}")
        return Path(lines[-1]) if code == 0 and lines else None

    async def answer(self, *arguments: str, seconds: float = _ANSWER_SECONDS) -> tuple[int, list[str]]:
        """Run it and return exit code and lines. The code is 124 after too long a time, 127 if it does not start."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                code = await self.run(*arguments, cwd=Path("/"), line=lines.append)
        except TimeoutError:
            return 124, [f"no answer within {seconds:g} s"]
        except OSError as error:
            return 127, [error.strerror or str(error)]
        return code, [line.strip() for line in lines if line.strip()]


def apart(engine: Path, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return what gives a build's chroot its own processes and devices. Other commands get nothing."""
    if not {"build", CHROOT} <= set(arguments):
        return ()
    alone = (sys.executable, "-I", "-S", str(_NAMESPACES))
    # An ordinary user may do so in a user namespace alone, and the engine's own has all of the user's ids.
    return alone if os.geteuid() == 0 else (str(engine), "unshare", *alone)


def engine_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Select the controller's variables that engines get."""
    return {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}


def installed_engines(environ: Mapping[str, str]) -> Iterator[tuple[str, ContainerEngine | None]]:
    """Yield each supported engine's name, with the engine if it is installed.

    Args:
        environ: the controller's environment variables; FAL_CONTAINER_ENGINE names the one to use.
    """
    variables = engine_variables(environ)
    for name in (environ[CHOICE],) if environ.get(CHOICE) else _NAMES:
        path = shutil.which(name, path=variables.get("PATH", os.defpath))
        yield name, None if path is None else ContainerEngine(path=Path(path), variables=variables)
