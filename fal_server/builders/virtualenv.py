"""Builds environments of kind `virtualenv` with uv. It keeps them by the hash of their specification."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fal_runner.isolation.interpreters import LONGEST_SETTINGS
from fal_runner.isolation.levels import Isolation
from fal_runner.process.foreign_files import read_regular
from fal_runner.process.removal import discard_tree
from fal_server.builders.builds import SharedBuilds, UrlRedactor, changed_at, note_use
from fal_server.builders.configuration import ALWAYS, FIELD, VirtualenvConfiguration, parse
from fal_server.builders.places import NAME, BuildPlace, is_locked, place_of, remove_abandoned
from fal_server.builders.process import failure
from fal_server.builders.sandboxes import BuildSandbox, BuildSandboxes
from fal_server.builders.uv import Uv
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NodeTrouble, Unavailable, Unimplemented
from fal_server.core.identity import AccountId
from fal_server.core.retention import Generation
from fal_server.core.revisions import EnvironmentSpec
from fal_server.ports import BuildLog, BuiltEnvironment

# Written last: a directory without it belongs to a running or killed build, and does not count.
_MARKER, _DRAFT = ".fal-built", ".fal-built.draft"
# Its content identifies how this version builds; an environment that was built in another way is built again.
_RECIPE = "1 " + " ".join(ALWAYS)
# Touched when a deploy or a runner gets the environment.
_USED = ".fal-used"
_WORK = ".work"  # the build's own directory, beside it
_LINES_IN_ERROR = 25


class VirtualenvBuilder:
    """Implements Builder and EnvironmentStore.

    Each build has its own directory, `<env_id>-<generation>`, because a virtual environment cannot be moved, and one in
    use must not change. During a build, the builder locks the directory, and the build's processes end with the
    builder. An unfinished directory without a lock was left by a killed controller, and is removed at construction.

    Args:
        root: holds the environments; created (mode 0700) if it is missing.
        cache_dir: uv's cache, unless UV_CACHE_DIR names another; fastest on the file system of `root`.
        sandboxes: creates the sandboxes of builds.
        environ: the controller's environment variables; uv gets few of them.

    Raises:
        Unavailable: `root` cannot be created.
    """

    def __init__(
        self, root: Path, cache_dir: Path, sandboxes: BuildSandboxes, environ: Mapping[str, str] | None = None
    ) -> None:
        self._root = root.absolute()
        self._sandboxes = sandboxes
        self._uv = Uv(cache_dir.absolute(), os.environ if environ is None else environ)
        self._under_way = SharedBuilds()
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_abandoned()
        except OSError as error:
            raise Unavailable(f"the environments in {root} cannot be used: {error.strerror}") from error

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        _check_kind(spec.kind)
        configuration = parse(spec.configuration)
        if not force and (found := self.find(spec)):
            return found
        work = partial(self._build, spec, configuration, force)
        return await self._under_way.follow(spec.env_id, work, log)

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """Find the newest finished generation whose interpreter still exists."""
        env_id = spec.env_id
        for directory in sorted(self._generations(env_id), key=_generation, reverse=True):
            python = directory / "bin" / "python"
            if python.exists() and _is_built(directory):
                note_use(directory / _USED)
                return BuiltEnvironment(env_id=env_id, python=python)
        return None

    def cache_of(self, account: AccountId) -> Path:
        """Return the cache of an account's packages."""
        return self._uv.cache_of(account)

    def generations(self) -> Sequence[Generation]:
        found: list[Generation] = []
        try:
            for directory in self._generations("*"):
                finished_at = changed_at(directory / _MARKER)
                if finished_at is None:
                    continue  # it is still being built
                found.append(
                    Generation(
                        env_id=directory.name.rpartition("-")[0],
                        name=directory.name,
                        number=_generation(directory),
                        usable=_is_built(directory) and (directory / "bin" / "python").exists(),
                        finished_at=finished_at,
                        used_at=changed_at(directory / _USED) or finished_at,
                    )
                )
        except OSError as error:
            raise Unavailable(f"the environments in {self._root} cannot be read: {error.strerror}") from error
        return found

    async def delete(self, generation: Generation) -> bool:
        directory = self._root / generation.name
        marker = directory / _MARKER
        try:
            # No await between the check and the unlink, so that nobody finds it in between.
            if (changed_at(directory / _USED) or generation.used_at) > generation.used_at:
                return False
            marker.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"the environment {directory} cannot be deleted: {error.strerror}") from error
        await asyncio.shield(asyncio.to_thread(discard_tree, directory))
        return True

    async def close(self) -> None:
        """Cancel the running builds; nothing is left of them."""
        await self._under_way.cancel()

    async def _build(
        self, spec: EnvironmentSpec, configuration: VirtualenvConfiguration, force: bool, line: Callable[[str], None]
    ) -> BuiltEnvironment:
        env_id = spec.env_id
        redact = UrlRedactor(text for layer in configuration.layers for text in layer)
        output: deque[str] = deque(maxlen=_LINES_IN_ERROR)

        def say(text: str) -> None:
            clean = redact(text)
            output.append(clean)
            line(clean)

        version = configuration.python_version
        interpreter = await self._uv.find_python(version)
        if interpreter is None:
            here = ", ".join(await self._uv.list_pythons())
            raise FailedPrecondition(
                f"there is no Python {version} on this machine: it has {here}; use one, or install {version}"
            )
        directory, lock = self._reserve(env_id)
        try:
            await self._build_in(directory, spec.account, interpreter, configuration, force, say, output)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(discard_tree, directory))
            if isinstance(error, OSError):
                fault = NodeTrouble if NodeTrouble.explains(error) else Unavailable
                raise fault(f"the environment could not be built in {self._root}: {error.strerror}") from error
            raise
        finally:
            os.close(lock)
        say("The environment is built")
        return BuiltEnvironment(env_id=env_id, python=directory / "bin" / "python")

    async def _build_in(
        self,
        directory: Path,
        account: AccountId,
        interpreter: Path,
        configuration: VirtualenvConfiguration,
        force: bool,
        say: Callable[[str], None],
        output: deque[str],
    ) -> None:
        """Fill a directory with a finished environment, or leave it empty."""
        cache = self._uv.cache_of(account)
        with place_of(directory, cache, in_sandbox=self._sandboxes.isolation is Isolation.PROCESS) as place:
            sandbox = self._sandboxes.open(
                directory.with_name(f"{directory.name}{_WORK}"),
                f"build-{directory.name[:16]}-{_generation(directory)}",
                [] if place.is_staged else [directory],
                [cache],
            )
            async with sandbox as opened:
                await self._install(place, interpreter, configuration, force, say, output, opened)
            _mark(place.built)
            place.finish()

    async def _install(
        self,
        place: BuildPlace,
        interpreter: Path,
        configuration: VirtualenvConfiguration,
        force: bool,
        say: Callable[[str], None],
        output: deque[str],
        sandbox: BuildSandbox,
    ) -> None:
        say(f"Making a virtual environment with Python {configuration.python_version}")
        if await self._uv.make_environment(place, interpreter, sandbox, say) != 0:
            raise failure("the virtual environment could not be made", output)
        made = _interpreter_of(place.built)
        for number, layer in enumerate(configuration.layers, 1):
            say(f"Installing requirements, {number} of {len(configuration.layers)}")
            text = "\n".join(layer) + "\n"
            if await self._uv.install(place, interpreter, text, refresh=force, sandbox=sandbox, line=say) != 0:
                raise failure("the requirements could not be installed", output)
            if _interpreter_of(place.built) != made or any(map(os.path.lexists, _kept(place.built))):
                # The sandboxes of runners are created by these links.
                raise FailedPrecondition(
                    "a package changed the environment's interpreter or a file of the controller in it: "
                    "leave that package out"
                )

    def _reserve(self, env_id: str) -> tuple[Path, int]:
        """Create the next generation's directory. It is locked while the descriptor is open here or in a child."""
        generation = max(map(_generation, self._generations(env_id)), default=0) + 1
        directory = self._root / f"{env_id}-{generation}"
        try:
            directory.mkdir(mode=0o700)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            fault = NodeTrouble if NodeTrouble.explains(error) else Unavailable
            raise fault(f"the directory {directory} cannot be made: {error.strerror}") from error
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return directory, lock

    def _generations(self, env_id: str) -> Iterator[Path]:
        return (path for path in self._root.glob(f"{env_id}-*") if NAME.fullmatch(path.name))

    def _remove_abandoned(self) -> None:
        for cache in self._uv.caches():
            remove_abandoned(cache)
        for work in self._root.glob(f"*{_WORK}"):
            if not is_locked(work.with_name(work.name.removesuffix(_WORK))):
                discard_tree(work)
        for directory in self._generations("*"):
            if (directory / _MARKER).exists():
                continue
            if not is_locked(directory):
                discard_tree(directory)


def _check_kind(kind: str) -> None:
    match kind:
        case "virtualenv":
            return
        case "conda":
            raise Unimplemented(
                "environments of the kind 'conda' cannot be built here: use kind 'virtualenv' with requirements"
            )
        case "local":
            raise Unimplemented(
                "environments of the kind 'local' would run in the controller's environment: use kind 'virtualenv'"
            )
        case _:
            raise InvalidArgument(FIELD, f"environment kind {kind[:80]!r} is unknown: use 'virtualenv' or 'container'")


def _generation(directory: Path) -> int:
    return int(directory.name.rpartition("-")[2])


def _interpreter_of(directory: Path) -> Mapping[str, str]:
    """Return what determines an environment's interpreter. It is bin's links, and the file that names its base."""
    binaries, settings = directory / "bin", directory / "pyvenv.cfg"
    if binaries.is_symlink():
        return {}
    links = {path.name: str(path.readlink()) for path in binaries.glob("python*") if path.is_symlink()}
    try:
        return {**links, settings.name: read_regular(settings, LONGEST_SETTINGS).decode(errors="replace")}
    except OSError:
        return {}


def _kept(directory: Path) -> list[Path]:
    """Return the controller's own files in an environment."""
    return [directory / name for name in (_MARKER, _DRAFT, _USED)]


def _mark(directory: Path) -> None:
    """Write the marker atomically."""
    draft = directory / _DRAFT
    with draft.open("x") as file:
        file.write(_RECIPE)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(directory / _MARKER)


def _is_built(directory: Path) -> bool:
    try:
        return read_regular(directory / _MARKER, len(_RECIPE) + 1) == _RECIPE.encode()
    except OSError:
        return False
