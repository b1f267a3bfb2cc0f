"""Builds environments of kind `container` with podman or docker. It finds them by their specification."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from fal_runner.isolation.engine_namespaces import KEPT_VARIABLE
from fal_runner.process.removal import discard_tree
from fal_server.builders.build_remains import BuildRemains
from fal_server.builders.builds import SharedBuilds, UrlRedactor, changed_at, note_use
from fal_server.builders.configuration import FIELD
from fal_server.builders.container_engine import ContainerEngine, engine_variables
from fal_server.builders.engine_trials import EngineTrials
from fal_server.builders.image import ImageConfiguration, parse_image
from fal_server.builders.process import failure
from fal_server.builders.watch import Watch
from fal_server.core.builds import BuildLimits
from fal_server.core.containers import Container, EngineOptions
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NodeTrouble, NotFound, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.retention import Generation
from fal_server.core.revisions import EnvironmentSpec
from fal_server.ports import BuildLog, BuiltEnvironment, DeployedFiles

_LINES_IN_ERROR = 25
_NO_NEWS = "Requirement already satisfied"  # pip prints this for each package that the image has
_LEAST_REDACTED = 4


class ContainerBuilder:
    """Implements Builder and EnvironmentStore for images. The engine keeps an image, a note its id.

    Args:
        root: holds the notes; created (mode 0700) if it is missing.
        files: the uploaded files, which Dockerfiles copy.
        environ: the controller's environment variables.
        trials: finds the engine to use.
        limits: of each build. A service, such as docker's, builds outside of them, except of the time.
    """

    def __init__(
        self,
        root: Path,
        files: DeployedFiles,
        environ: Mapping[str, str],
        trials: EngineTrials,
        limits: BuildLimits | None = None,
    ) -> None:
        self._root = root.absolute()
        self._files = files
        self._variables = engine_variables(environ)
        self._trials = trials
        self._limits = limits or BuildLimits()
        self._remains = BuildRemains(self._root)
        self._under_way = SharedBuilds()

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        configuration = parse_image(spec)
        if not force and self._trials.known is not None and (found := self.find(spec)):
            return found
        work = partial(self._find_or_build, spec, configuration, force)
        return await self._under_way.follow(spec.env_id, work, log)

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """Find the note if its engine is still in use. The engine is known after the first trial."""
        env_id = spec.env_id
        known = self._trials.known
        try:
            note = json.loads(self._note(env_id).read_text())
            container = Container(
                engine=Path(note["engine"]),
                options=known.options if known is not None else EngineOptions(),
                image=str(note["image"]),
                entrypoint=None if note["entrypoint"] is None else tuple(note["entrypoint"]),
                cmd=None if note["cmd"] is None else tuple(note["cmd"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not os.access(container.engine, os.X_OK) or (known is not None and known.path != container.engine):
            return None
        note_use(self._used(env_id))
        return BuiltEnvironment(env_id=env_id, python=Path("python3"), container=container)

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """Find the image if its engine has it; otherwise delete the note.

        Raises:
            Unimplemented: neither podman nor docker can be used here.
        """
        engine = await self._trials.find()
        found = self.find(spec)
        if found is None or found.container is None:
            return None
        if await engine.run("image", "inspect", found.container.image, cwd=Path("/"), line=_drop) == 0:
            return found
        if spec.env_id not in self._under_way:
            self._note(spec.env_id).unlink(missing_ok=True)
        return None

    async def report(self) -> str:
        """Report how containers run here. Try nothing unless an image was built here."""
        return await self._trials.report(needed=bool(await asyncio.to_thread(self.generations)))

    def generations(self) -> Sequence[Generation]:
        """List the built images; only the newest has the environment's tag."""
        found: list[Generation] = []
        for note in self._root.glob("*.json"):
            env_id, finished_at = note.stem, changed_at(note)
            if finished_at is not None:
                used_at = changed_at(self._used(env_id)) or finished_at
                found.append(Generation(env_id=env_id, name=env_id, number=1, finished_at=finished_at, used_at=used_at))
        return found

    async def delete(self, generation: Generation) -> bool:
        env_id = generation.env_id
        if (changed_at(self._used(env_id)) or generation.used_at) > generation.used_at:
            return False
        try:
            engine = json.loads(self._note(env_id).read_text())["engine"]
            self._note(env_id).unlink()
            self._used(env_id).unlink(missing_ok=True)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        program = ContainerEngine(path=Path(engine), variables=self._variables)
        with suppress(OSError):  # the engine was uninstalled, and its images with it
            await program.run("image", "rm", _tag(env_id), cwd=Path("/"), line=_drop)
        return True

    async def end_dead_builds(self) -> None:
        """Remove what builds of killed controllers left, except working containers. These go before the next build."""
        await self._remains.end_dead_builds()

    async def close(self) -> None:
        """Cancel the builds that are running."""
        await self._under_way.cancel()

    async def _find_or_build(
        self, spec: EnvironmentSpec, configuration: ImageConfiguration, force: bool, line: Callable[[str], None]
    ) -> BuiltEnvironment:
        engine = await self._trials.find(line)
        if not force and (found := self.find(spec)):
            return found
        return await self._build(spec, engine, configuration, force, line)

    async def _build(
        self,
        spec: EnvironmentSpec,
        engine: ContainerEngine,
        configuration: ImageConfiguration,
        force: bool,
        line: Callable[[str], None],
    ) -> BuiltEnvironment:
        env_id = spec.env_id
        redact = _redactor(configuration)
        output: deque[str] = deque(maxlen=_LINES_IN_ERROR)

        def say(text: str) -> None:
            if text.startswith(_NO_NEWS):
                return
            clean = redact(text)
            output.append(clean)
            line(clean)

        work: Path | None = None
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            await self._remains.remove_earlier(engine)
            work = Path(tempfile.mkdtemp(prefix="build-", dir=self._root))
            await asyncio.to_thread(self._lay_out, work, configuration, spec.account)
            storage = await engine.storage()
            watch = Watch(self._limits, None, [work], [] if storage is None else [storage])
            async with watch.enforcing():
                image = await self._image(env_id, engine, configuration, work, force, say, output, watch.follow)
            await asyncio.to_thread(self._write, env_id, engine, configuration, image)
        except OSError as error:
            fault = NodeTrouble if NodeTrouble.explains(error) else Unavailable
            raise fault(f"the image could not be built in {self._root}: {error.strerror}") from error
        finally:
            if work is not None:
                await asyncio.shield(asyncio.to_thread(discard_tree, work))
        say("The image is built")
        found = Container(
            engine=engine.path,
            options=engine.options,
            image=image,
            entrypoint=configuration.entrypoint,
            cmd=configuration.cmd,
        )
        return BuiltEnvironment(env_id=env_id, python=Path("python3"), container=found)

    async def _image(
        self,
        env_id: str,
        engine: ContainerEngine,
        configuration: ImageConfiguration,
        work: Path,
        force: bool,
        say: Callable[[str], None],
        output: deque[str],
        started: Callable[[int], None],
    ) -> str:
        """Have the engine build it; return its id."""
        arguments = ["build", *engine.options.build, "--file", str(work / "Dockerfile")]
        arguments += ["--iidfile", str(work / "image"), "--tag", _tag(env_id)]  # pruning deletes images without a tag
        arguments += ["--no-cache"] if force else []
        variables = {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "NO_COLOR": "1", **configuration.build_args}
        for name in configuration.build_args:
            arguments += ["--build-arg", name]  # the engine takes the value from its own environment
        (work / "tmp").mkdir()
        variables["TMPDIR"] = str(work / "tmp")
        files = self._remains.private_files()
        try:
            files.write("none", "")
            arguments += ["--secret", f"id={files.mark},src={files.directory / 'none'}"]
            for number, (name, value) in enumerate({**configuration.secrets, **configuration.layers}.items()):
                arguments += ["--secret", f"id={name},src={files.write(f'secret-{number}', value)}"]
            if configuration.registries:
                logins = files.write("config.json", _logins(configuration))
                variables |= {"REGISTRY_AUTH_FILE": str(logins), "DOCKER_CONFIG": str(files.directory)}
            say(f"Building the image with {engine.path.name}")
            variables[KEPT_VARIABLE] = str(files.directory)
            context = str(work / "context")
            code = await engine.run(*arguments, context, cwd=work, line=say, more=variables, started=started)
        except asyncio.CancelledError:
            files.close()  # delete secrets before the engine removes its own remains
            await asyncio.shield(self._remains.remove_containers(engine, files.mark))
            raise
        finally:
            files.close()
        if code != 0:
            raise failure("the image could not be built", output)
        return (work / "image").read_text().strip()

    def _lay_out(self, work: Path, configuration: ImageConfiguration, account: AccountId) -> None:
        """Write the Dockerfile and, beside it, the directory that it copies from."""
        (work / "Dockerfile").write_text(configuration.dockerfile)
        context = work / "context"
        context.mkdir()
        for relative_path, digest in configuration.context:
            target = Path(os.path.normpath(context / relative_path))
            if not target.is_relative_to(context) or target == context:
                raise InvalidArgument(FIELD, f"the file {relative_path[:80]!r} lies outside of the image's context")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy(self._files.path(account, digest), target)
            except NotFound as fault:
                raise FailedPrecondition(f"file {relative_path!r} was not uploaded: deploy again") from fault
        for directory, _, _ in os.walk(context):
            Path(directory).chmod(0o755)  # COPY keeps modes, but an image may run as another user

    def _write(self, env_id: str, engine: ContainerEngine, configuration: ImageConfiguration, image: str) -> None:
        note = self._note(env_id)
        content = {
            "engine": str(engine.path),
            "image": image,
            "entrypoint": configuration.entrypoint,
            "cmd": configuration.cmd,
        }
        draft = note.with_suffix(".draft")
        draft.write_text(json.dumps(content))
        draft.replace(note)

    def _note(self, env_id: str) -> Path:
        return self._root / f"{env_id}.json"

    def _used(self, env_id: str) -> Path:
        return self._root / f"{env_id}.used"


def _logins(configuration: ImageConfiguration) -> str:
    """Return the registries' passwords in the format that both engines read."""
    auths = {
        host: {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
        for host, login in configuration.registries.items()
    }
    return json.dumps({"auths": auths})


def _tag(env_id: str) -> str:
    return f"localhost/fal-grpc:{env_id[:40]}"


def _drop(line: str) -> None:
    """Ignore the output of an inspection or a removal."""


def _redactor(configuration: ImageConfiguration) -> Callable[[str], str]:
    urls = UrlRedactor([*configuration.layers.values(), configuration.dockerfile])
    values = [*configuration.secrets.values(), *(login.password for login in configuration.registries.values())]
    known = sorted((value for value in values if len(value) >= _LEAST_REDACTED), key=len, reverse=True)

    def redact(text: str) -> str:
        for value in known:
            text = text.replace(value, "****")
        return urls(text)

    return redact
