"""Builds environments of the kind `virtualenv` with uv, and keeps them by the hash of their specification."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fal_server.builders.builds import SharedBuilds, UrlRedactor, changed_at, note_use
from fal_server.builders.configuration import ALWAYS, FIELD, VirtualenvConfiguration, parse
from fal_server.builders.process import failure
from fal_server.builders.uv import Uv
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NodeTrouble, Unavailable, Unimplemented
from fal_server.core.identity import AccountId
from fal_server.core.retention import Generation
from fal_server.core.revisions import EnvironmentSpec
from fal_server.ports import BuildLog, BuiltEnvironment

_DIRECTORY = re.compile(r"[0-9a-f]{64}-[0-9]+")
# Written last: a directory without it is a build that is running or was killed, and does not count.
_MARKER = ".fal-built"
# Its content says how this version builds; what was built in another way is built again.
_RECIPE = "1 " + " ".join(ALWAYS)
# Touched whenever a deploy or a runner gets the environment.
_USED = ".fal-used"
_LINES_IN_ERROR = 25


class VirtualenvBuilder:
    """Implements Builder and EnvironmentStore.

    Each build has its own directory, `<env_id>-<generation>`, because a virtual environment cannot be moved, and one
    that runners use must not change. During a build, the builder and all that it started hold a lock on the directory;
    one that is unfinished and not locked was left by a killed controller, and is removed at construction.

    Args:
        root: where environments are kept; made (mode 0700) if it is missing.
        cache_dir: uv's cache, unless UV_CACHE_DIR says otherwise; fastest on the file system of `root`.
        environ: the controller's environment variables, of which uv gets few.

    Raises:
        Unavailable: `root` cannot be made.
    """

    def __init__(self, root: Path, cache_dir: Path, environ: Mapping[str, str] | None = None) -> None:
        self._root = root.absolute()
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
        """Find the newest finished generation whose interpreter is still there."""
        env_id = spec.env_id
        for directory in sorted(self._generations(env_id), key=_generation, reverse=True):
            python = directory / "bin" / "python"
            if python.exists() and _is_built(directory):
                note_use(directory / _USED)
                return BuiltEnvironment(env_id=env_id, python=python)
        return None

    def cache_of(self, account: AccountId) -> Path:
        """Return where the packages of an account are cached."""
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
            # No pause between the check and the unlink, so that nobody finds it in between.
            if (changed_at(directory / _USED) or generation.used_at) > generation.used_at:
                return False
            marker.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"the environment {directory} cannot be deleted: {error.strerror}") from error
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
        return True

    async def close(self) -> None:
        """Cancel the builds that are running; nothing is left of them."""
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
        interpreter = await self._uv.find_python(version, self._root)
        if interpreter is None:
            here = ", ".join(await self._uv.list_pythons(self._root))
            raise FailedPrecondition(
                f"there is no Python {version} on this machine: it has {here}; use one, or install {version}"
            )
        directory, lock = self._reserve(env_id)
        try:
            await self._install(spec.account, directory, interpreter, configuration, force, say, output, lock)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
            if isinstance(error, OSError):
                fault = NodeTrouble if NodeTrouble.explains(error) else Unavailable
                raise fault(f"the environment could not be built in {self._root}: {error.strerror}") from error
            raise
        finally:
            os.close(lock)
        return BuiltEnvironment(env_id=env_id, python=directory / "bin" / "python")

    async def _install(
        self,
        account: AccountId,
        directory: Path,
        interpreter: Path,
        configuration: VirtualenvConfiguration,
        force: bool,
        say: Callable[[str], None],
        output: deque[str],
        lock: int,
    ) -> None:
        say(f"Making a virtual environment with Python {configuration.python_version}")
        create = ("venv", "--no-project", "--quiet", "--python", str(interpreter), str(directory))
        if await self._uv.run(*create, cwd=self._root, line=say, keep_open=[lock], account=account) != 0:
            raise failure("the virtual environment could not be made", output)
        for number, layer in enumerate(configuration.layers, 1):
            say(f"Installing requirements, {number} of {len(configuration.layers)}")
            # Compiled here, once, or the first start of an app would take the time.
            install = ["pip", "install", "--compile-bytecode", "--python", str(directory), "--requirements", "-"]
            install += ["--refresh"] if force else []
            text = "\n".join(layer) + "\n"
            done = self._uv.run(*install, cwd=self._root, stdin=text, line=say, keep_open=[lock], account=account)
            if await done != 0:
                raise failure("the requirements could not be installed", output)
        _mark(directory)
        say("The environment is built")

    def _reserve(self, env_id: str) -> tuple[Path, int]:
        """Make the next generation's directory, locked as long as the descriptor is open here or in a child."""
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
        return (path for path in self._root.glob(f"{env_id}-*") if _DIRECTORY.fullmatch(path.name))

    def _remove_abandoned(self) -> None:
        for directory in self._generations("*"):
            if (directory / _MARKER).exists():
                continue
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            except BlockingIOError:
                continue  # an installer outlived its controller and still writes to it
            finally:
                os.close(lock)


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
                "environments of the kind 'local' would run in the controller's own: use kind 'virtualenv'"
            )
        case _:
            raise InvalidArgument(FIELD, f"environment kind {kind[:80]!r} is unknown: use 'virtualenv' or 'container'")


def _generation(directory: Path) -> int:
    return int(directory.name.rpartition("-")[2])


def _mark(directory: Path) -> None:
    """Write the marker, whole or not at all."""
    draft = directory / f"{_MARKER}.draft"
    with draft.open("w") as file:
        file.write(_RECIPE)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(directory / _MARKER)


def _is_built(directory: Path) -> bool:
    try:
        return (directory / _MARKER).read_text() == _RECIPE
    except OSError:
        return False
