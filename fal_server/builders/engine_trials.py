"""Finds options with which a container engine works on this machine. It tries them, and keeps the result.

Machines differ in what they allow. Without the privilege to raise limits, or with both versions of control groups, crun
and runc refuse. On such machines runsc (gVisor) runs containers, and builds use a chroot.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fal_runner.process.removal import discard_tree
from fal_server.builders.container_engine import CHOICE, CHROOT, NO_ENGINE, ContainerEngine, installed_engines
from fal_server.builders.probe_program import TOUCHED_MIB, probe_program
from fal_server.core.containers import EngineOptions
from fal_server.core.faults import Unimplemented

PROBE_TAG = "localhost/fal-grpc-probe"
_TRIAL_SECONDS = 60.0
_WAYS = 3
"""Which ways are tried; what an earlier version found is tried again."""
_DOCKERFILE = 'FROM scratch\nCOPY probe /probe\nRUN ["/probe"]\nENTRYPOINT ["/probe"]\n'
_LIMIT_MIB = TOUCHED_MIB // 2
_SETTINGS = ("CONTAINERS_", "STORAGE_", "DOCKER_")
_RUNTIMES = ("crun", "runc", "runsc")
# A container shares the machine's network, and a pipe and a socket with its runner.
_RUNSC_FLAGS = ("--runtime-flag", "network=host", "--runtime-flag", "host-uds=open", "--runtime-flag", "host-fifo=open")
# Some machines let no ordinary user create control groups; limits are not enforced there.
_WITHOUT_CGROUPS = ("--runtime-flag", "ignore-cgroups")
# podman's monitor passes --tty to the `exec` of a runtime. runsc has no such option: it uses the process's description
# and --console-socket, which it gets, too.
_RUNSC_SCRIPT = """#!/bin/sh
# Runs runsc without --tty, which it does not know.
for word do
    shift
    [ "$word" = --tty ] || set -- "$@" "$word"
done
exec {runsc} "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of the trials of this machine's engines.

    Attributes:
        engine: the one to use; None if none works.
        detail: what works, or what each engine lacks.
        fix: what to do if none works.
    """

    engine: ContainerEngine | None
    detail: str
    fix: str = ""


class EngineTrials:
    """Tries engines, once for each combination of versions. It tries again while none works.

    Args:
        environ: the controller's environment variables; FAL_CONTAINER_ENGINE names the engine to use.
        directory: keeps the results, and a script that runs runsc; created (mode 0700) if needed.
    """

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._directory = directory.absolute()
        self._found: ContainerEngine | None = None
        self._lock = asyncio.Lock()

    @property
    def known(self) -> ContainerEngine | None:
        """The engine that was found; None before the first search."""
        return self._found

    async def find(self, say: Callable[[str], None] | None = None) -> ContainerEngine:
        """Return the engine to use.

        Args:
            say: called once if engines must be tried, which takes seconds.

        Raises:
            Unimplemented: there is none, or none works; the message says what each one lacks.
        """
        finding = await self.look(say)
        if finding.engine is None:
            raise Unimplemented(
                f"containers cannot be built or run on this machine: {finding.detail}. {finding.fix}"
                "Or deploy with kind 'virtualenv'"
            )
        return finding.engine

    async def look(self, say: Callable[[str], None] | None = None) -> Finding:
        """Find a working engine; see `find`."""
        async with self._lock:
            if self._found is not None:
                return Finding(engine=self._found, detail=_describe(self._found))
            lacks: list[str] = []
            installed = False
            for name, engine in installed_engines(self._environ):
                if name == NO_ENGINE:
                    lacks.append(f"{CHOICE} is {NO_ENGINE}")
                    continue
                if engine is None:
                    lacks.append(f"{name} is not installed")
                    continue
                installed = True
                code, lines = await engine.answer("--version")
                if code != 0:
                    lacks.append(f"`{name} --version` failed ({_last(lines, code)})")
                    continue
                answering = replace(engine, version=_version(engine.path.name, lines))
                options = await self._options(answering, say)
                if isinstance(options, EngineOptions):
                    self._found = replace(answering, options=options)
                    return Finding(engine=self._found, detail=_describe(self._found))
                lacks.append(options)
            return Finding(engine=None, detail="; ".join(lacks), fix=self._fix(installed=installed))

    async def report(self, *, needed: bool) -> str:
        """Report, for the controller's log, how containers run here.

        Args:
            needed: whether any app runs in a container; otherwise nothing is tried.
        """
        if needed:
            finding = await self.look()
            return finding.detail if finding.engine is not None else f"{finding.detail}. {finding.fix}".strip()
        names = [name for name, engine in installed_engines(self._environ) if engine is not None]
        return f"{names[0]} is tried when an app needs it" if names else "neither podman nor docker is installed"

    def _fix(self, *, installed: bool) -> str:
        if self._environ.get(CHOICE) == NO_ENGINE:
            return f"Unset {CHOICE} to look for one. "
        if not installed:
            return "Install podman (Debian, Ubuntu: apt install podman). "
        if self._which("runsc") is None:
            return "Install runsc (gVisor), with which podman works on most such machines. "
        return "`fal doctor` tries again. "

    async def _options(self, engine: ContainerEngine, say: Callable[[str], None] | None) -> EngineOptions | str:
        """Return an engine's options, kept or tried, or why it fails."""
        script = await asyncio.to_thread(self._write_runsc_script)
        key = self._key(engine)
        noted = self._read(key)
        if noted is not None:
            return noted
        if say is not None:
            say(f"Trying {engine.version}, once: how it builds and runs containers on this machine")
        options = await _try(engine, script)
        if isinstance(options, EngineOptions):
            await asyncio.to_thread(self._write, key, options)
        return options

    def _key(self, engine: ContainerEngine) -> str:
        """Return a key of all that the options depend on."""
        runtimes = [self._which(name) for name in _RUNTIMES]
        limits = [resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)]
        files = [f"{path} {path.stat().st_mtime_ns}" for path in (engine.path, *runtimes) if path is not None]
        settings = [f"{name}={value}" for name, value in sorted(engine.variables.items()) if name.startswith(_SETTINGS)]
        parts = [_WAYS, engine.version, platform.release(), os.getuid(), *limits, *files, *settings, self._directory]
        return "\n".join(map(str, parts))

    def _which(self, name: str) -> Path | None:
        path = shutil.which(name, path=self._environ.get("PATH", os.defpath))
        return None if path is None else Path(path)

    def _write_runsc_script(self) -> Path | None:
        runsc = self._which("runsc")
        if runsc is None:
            return None
        self._directory.mkdir(mode=0o700, exist_ok=True)
        script = self._directory / "runsc"
        text = _RUNSC_SCRIPT.format(runsc=shlex.quote(str(runsc)))
        if not script.exists() or script.read_text() != text:
            draft = script.with_suffix(".draft")
            draft.write_text(text)
            draft.chmod(0o700)
            draft.replace(script)
        return script

    def _read(self, key: str) -> EngineOptions | None:
        try:
            noted = json.loads((self._directory / "engine.json").read_text())
            if noted["key"] != key:
                return None
            found = noted["options"]
            return EngineOptions(
                engine=tuple(map(str, found["engine"])),
                run=tuple(map(str, found["run"])),
                build=tuple(map(str, found["build"])),
                limits=bool(found["limits"]),
                publishes=bool(found["publishes"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, key: str, options: EngineOptions) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        draft = self._directory / "engine.draft"
        with suppress(OSError):  # on a full disk; the next start tries again
            draft.write_text(json.dumps({"key": key, "options": asdict(options)}))
            draft.replace(self._directory / "engine.json")


async def _try(engine: ContainerEngine, runsc: Path | None) -> EngineOptions | str:
    """Build an image and run it with each set of options. Return the first that works, or why none works."""
    program = probe_program()
    if program is None:  # no further options are known
        return EngineOptions()
    podman = engine.path.name != "docker"
    tag = f"{PROBE_TAG}:{secrets.token_hex(6)}"
    work = Path(tempfile.mkdtemp(prefix="fal-probe-"))
    try:
        (work / "probe").write_bytes(program)
        (work / "probe").chmod(0o755)
        (work / "Dockerfile").write_text(_DOCKERFILE)
        build = await _first(engine, _builds(tag, work), _build_options() if podman else [_PLAIN])
        if isinstance(build, str):
            return f"{engine.version} cannot build an image here ({build})"
        run = await _first(engine, _runs(tag), _run_options(runsc) if podman else [_PLAIN])
        if isinstance(run, str):
            return f"{engine.version} cannot run a container here ({run})"
        found = EngineOptions(engine=run[0], run=run[1], build=build[1])
        return await _measure(replace(engine, options=found), tag)
    finally:
        await asyncio.shield(engine.answer("image", "rm", "--force", tag))
        await asyncio.shield(asyncio.to_thread(discard_tree, work))


_Options = tuple[tuple[str, ...], tuple[str, ...]]
"""What comes before the verb, and what after it."""
_PLAIN: _Options = ((), ())
_Command = Callable[[Sequence[str]], list[str]]


def _builds(tag: str, work: Path) -> _Command:
    return lambda options: [
        "build",
        "--no-cache",
        *options,
        "--tag",
        tag,
        "--file",
        str(work / "Dockerfile"),
        str(work),
    ]


def _runs(tag: str) -> _Command:
    return lambda options: ["run", "--rm", "--network", "host", *options, tag]


def _build_options() -> list[_Options]:
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = ("--ulimit", f"nofile={open_files}:{open_files}")
    # Without that right: with it, a step of a Dockerfile leaves the chroot.
    chroot = ("--isolation", CHROOT, "--cap-drop", "SYS_CHROOT")
    return [((), after) for after in ((), limit, chroot, (*chroot, *limit))]


def _run_options(runsc: Path | None) -> list[_Options]:
    befores: list[tuple[str, ...]] = [()]
    if runsc is not None:
        gvisor = ("--runtime", str(runsc), *_RUNSC_FLAGS)
        befores += [gvisor, (*gvisor, *_WITHOUT_CGROUPS)]
    return [(before, after) for before in befores for after in ((), ("--ulimit", "host"))]


async def _first(engine: ContainerEngine, command: _Command, choices: Sequence[_Options]) -> _Options | str:
    """Return the first options with which a command works. If there are none, return the failure without options."""
    problem = ""
    for before, after in choices:
        code, lines = await engine.answer(*before, *command(after), seconds=_TRIAL_SECONDS)
        if code == 0:
            return before, after
        problem = problem or _last(lines, code)
    return problem


async def _measure(engine: ContainerEngine, tag: str) -> EngineOptions:
    """Find out whether limits are enforced and a port can be published."""
    options = engine.options
    limits = ("--memory", f"{_LIMIT_MIB}m", "--pids-limit", "512")
    allowed, _ = await engine.answer(*_runs(tag)([*options.run, *limits]), seconds=_TRIAL_SECONDS)
    over, _ = await engine.answer(*_runs(tag)([*options.run, *limits]), "touch", seconds=_TRIAL_SECONDS)
    published = ["run", "--rm", *options.run, "--publish", "127.0.0.1::80", tag]
    open_port, _ = await engine.answer(*published, seconds=_TRIAL_SECONDS)
    return replace(options, limits=allowed == 0 and over != 0, publishes=open_port == 0)


def _version(name: str, lines: Sequence[str]) -> str:
    """Return `podman 4.3.1` for `podman version 4.3.1`."""
    words = lines[-1].replace(",", " ").split() if lines else []
    return f"{name} {words[words.index('version') + 1]}" if "version" in words[:-1] else name


def _last(lines: Sequence[str], code: int) -> str:
    return lines[-1][:300] if lines else f"exit code {code}"


def _describe(engine: ContainerEngine) -> str:
    options = engine.options
    ways = ["runsc"] if options.engine else []
    ways += [" ".join(options.run)] if options.run else []
    builds = " ".join(options.build)
    text = f"{engine.version} runs containers" + (f" with {' and '.join(ways)}" if ways else "")
    text += f", builds them with {builds}" if builds else ""
    text += "; memory limits are enforced" if options.limits else "; memory limits are not enforced"
    return text if options.publishes else f"{text}; images that run themselves (use_isolate=False) cannot"
