"""Finds a usable podman or docker on this machine, and runs it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fal_server.builders.process import run_lines
from fal_server.core.faults import Unimplemented

_NAMES = ("podman", "docker")
_CHOICE = "FAL_CONTAINER_ENGINE"
_INFO_SECONDS = 20.0
# An engine may know where its storage and its service are, and how to reach the network.
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|DBUS_SESSION_BUS_ADDRESS|CONTAINERS?_\w+|DOCKER_\w+|"
    r"BUILDAH_\w+|STORAGE_\w+|REGISTRY_\w+|(?:HTTP|HTTPS|ALL|NO)_PROXY|(?:http|https|all|no)_proxy|"
    r"SSL_CERT_FILE|SSL_CERT_DIR"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """An engine that answers.

    Attributes:
        variables: its environment variables.
    """

    path: Path
    variables: Mapping[str, str] = field(repr=False)

    async def run(
        self, *arguments: str, cwd: Path, line: Callable[[str], None], more: Mapping[str, str] | None = None
    ) -> int:
        """Run it and return the exit code; secrets go into `more`, as environment variables, not into arguments."""
        return await run_lines(
            (str(self.path), *arguments), cwd=cwd, variables={**self.variables, **(more or {})}, line=line
        )


class ContainerEngines:
    """Finds an engine once; as long as there is none, looks again each time.

    Args:
        environ: the controller's environment variables; FAL_CONTAINER_ENGINE names the one to use.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._variables = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
        self._names: Sequence[str] = (environ[_CHOICE],) if environ.get(_CHOICE) else _NAMES
        self._found: ContainerEngine | None = None

    def variables(self) -> Mapping[str, str]:
        """The environment variables of engines."""
        return self._variables

    async def find(self) -> ContainerEngine:
        """Return the engine to use.

        Raises:
            Unimplemented: there is none, or none answers; the message says what each lacks.
        """
        if self._found is None:
            lacks: list[str] = []
            for name in self._names:
                path = shutil.which(name, path=self._variables.get("PATH", os.defpath))
                if path is None:
                    lacks.append(f"{name} is not installed")
                    continue
                engine = ContainerEngine(path=Path(path), variables=self._variables)
                problem = await _problem_with(engine)
                if problem is None:
                    self._found = engine
                    return engine
                lacks.append(f"`{name} info` failed ({problem})")
            raise Unimplemented(
                f"containers cannot be built or run on this machine: {'; '.join(lacks)}. "
                "Install podman, or deploy with kind 'virtualenv'"
            )
        return self._found


async def _problem_with(engine: ContainerEngine) -> str | None:
    """Why an engine cannot be used; None if it can."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(_INFO_SECONDS):
            code = await engine.run("info", cwd=Path("/"), line=lines.append)
    except TimeoutError:
        return f"no answer within {_INFO_SECONDS:g} s"
    except OSError as error:
        return error.strerror or str(error)
    if code == 0:
        return None
    last = [line.strip() for line in lines if line.strip()]
    return last[-1][:300] if last else f"exit code {code}"
