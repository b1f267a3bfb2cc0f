"""Images: calls of the engine, secrets, and the error without an engine. Secrets stay out of arguments and logs."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fal_server.builders import Builders, ContainerBuilder, EngineTrials, VirtualenvBuilder
from fal_server.core.builds import BuildLimits
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import AppFile, EnvironmentSpec, Json
from fal_server.ports import Builder
from tests.builders.conftest import SANDBOXES
from tests.support.containers import FakeEngine, make_engine

DOCKERFILE = (
    "FROM python:3.11-slim\nARG WHO\nCOPY hello.txt /hello.txt\nRUN --mount=type=secret,id=token cat /run/secrets/token"
)
IMAGE: dict[str, Json] = {
    "dockerfile_str": DOCKERFILE,
    "build_args": {"WHO": "Ada"},
    "secrets": {"token": "hush-hush"},
    "registries": {"registry.example": {"username": "ada", "password": "pass-word"}},
    "builder": None,
    "compression": "gzip",
    "force_compression": False,
    "docker_context_dir": "/home/ada/app",
    "docker_files_list": ["hello.txt"],
    "docker_ignore": [],
}


class Files:
    """Uploaded files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def put(self, name: str, text: str) -> AppFile:
        digest = hashlib.sha256(text.encode()).hexdigest()
        (self._folder / digest).write_text(text)
        return AppFile(hash=digest, relative_path=name)

    def path(self, account: AccountId, digest: str) -> Path:
        if not (self._folder / digest).exists():
            raise NotFound("file")
        return self._folder / digest


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return make_engine(tmp_path / "bin")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files")


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def builder(tmp_path: Path, engine: FakeEngine, files: Files) -> ContainerBuilder:
    return builder_with(tmp_path, files, engine.variables())


def builder_with(tmp_path: Path, files: Files, variables: dict[str, str]) -> ContainerBuilder:
    trials = EngineTrials(variables, tmp_path / "containers")
    return ContainerBuilder(tmp_path / "images", files, variables, trials)


def spec(image: dict[str, Json] = IMAGE, **more: Json) -> EnvironmentSpec:
    configuration: dict[str, Json] = {
        "image": image,
        "python_version": "3.11",
        "requirements": ["numpy==2.0"],
        "resolver": "uv",
    } | more
    return EnvironmentSpec(kind="container", configuration=configuration)


async def build(builder: Builder, asked: EnvironmentSpec, lines: list[str], *, force: bool = False):
    async def log(entry: LogEntry) -> None:
        lines.append(entry.message)

    return await builder.build(asked, force=force, log=log)


async def test_an_image_is_built_once_with_everything_and_found_again(builder, engine, files, lines):
    asked = spec().with_context([files.put("hello.txt", "hello")])
    assert builder.find(asked) is None
    built = await build(builder, asked, lines)
    assert built.container is not None
    assert (built.container.engine, built.container.image) == (engine.path, "sha256:fake")
    assert builder.find(asked) == built == await build(builder, asked, lines)
    (call,) = engine.calls("build")
    assert call["context"] == {"hello.txt": "hello"}
    text = str(call["dockerfile"])
    assert text.startswith(DOCKERFILE)
    assert 'found == "3.11"' in text
    assert "pip install" in text
    assert list(call["secrets"].values()) == ["hush-hush", "numpy==2.0\ncloudpickle\ngrpcio\n"]
    auth = base64.b64encode(b"ada:pass-word").decode()
    assert call["auth"] == {"auths": {"registry.example": {"auth": auth}}}
    assert not os.path.exists(call["variables"]["REGISTRY_AUTH_FILE"]), "the passwords are gone"  # noqa: ASYNC240, PTH110
    assert call["variables"]["WHO"] == "Ada"
    assert ("--build-arg", "WHO") in zip(call["arguments"], call["arguments"][1:], strict=False)


@pytest.mark.parametrize(
    ("dockerfile", "before", "after"),
    [
        ("FROM a\n user ada\nRUN x", "USER root\n", "USER ada\n"),
        ("FROM a\nUSER ada\nFROM b", "", ""),
        ("FROM a\nUSER ada\nUSER 12:34\n", "USER root\n", "USER 12:34\n"),
    ],
)
async def test_requirements_are_installed_as_root(builder, engine, lines, dockerfile, before, after):
    await build(builder, spec({"dockerfile_str": dockerfile}), lines)
    (call,) = engine.calls("build")
    added = str(call["dockerfile"]).removeprefix(dockerfile.rstrip() + "\n")
    assert (added.startswith(before + "RUN python3"), added.endswith("\n" + after)) == (True, True)


async def test_an_image_that_the_engine_has_lost_is_built_again(builder, engine, files, lines, tmp_path):
    asked = spec().with_context([files.put("hello.txt", "hello")])
    assert await builder.present(asked) is None
    built = await build(builder, asked, lines)
    assert await builder.present(asked) == built
    (call,) = engine.calls("image")
    assert call["arguments"] == ["image", "inspect", "sha256:fake"]
    engine.record.with_name("lost").touch()
    assert await builder.present(asked) is None
    assert builder.find(asked) is None
    await build(builder, asked, lines)
    assert len(engine.calls("build")) == 2


async def test_an_image_that_nobody_needs_is_removed(builder, engine, files, lines):
    asked = spec().with_context([files.put("hello.txt", "hello")])
    await build(builder, asked, lines)
    (seen,) = builder.generations()
    assert (seen.env_id, seen.usable) == (asked.env_id, True)
    assert builder.find(asked) is not None
    assert not await builder.delete(seen), "it was used since it was looked at"
    (seen,) = builder.generations()
    assert await builder.delete(seen)
    assert (builder.find(asked), builder.generations()) == (None, [])
    assert engine.calls("image")[-1]["arguments"] == ["image", "rm", f"localhost/fal-grpc:{asked.env_id[:40]}"]


async def test_no_secret_is_an_argument_or_shown(builder, engine, files, lines):
    await build(builder, spec().with_context([files.put("hello.txt", "hello")]), lines)
    said = "\n".join(lines) + str([call["arguments"] for call in engine.calls("build")])
    assert "STEP 1" in said
    assert not [secret for secret in ("hush-hush", "pass-word") if secret in said]
    assert not [word for word in ("hush-hush", "pass-word") if word in repr(spec())]


async def test_force_builds_again_without_the_engines_cache(builder, engine, lines):
    await build(builder, spec(), lines)
    await build(builder, spec(), lines, force=True)
    first, second = engine.calls("build")
    assert ("--no-cache" in first["arguments"], "--no-cache" in second["arguments"]) == (False, True)


def test_what_is_another_image_and_what_is_not(files):
    plain = spec()
    assert plain.env_id != plain.with_context([files.put("a.txt", "1")]).env_id
    assert plain.with_context([files.put("a.txt", "1")]).env_id != plain.with_context([files.put("a.txt", "2")]).env_id
    assert plain.env_id == spec(IMAGE | {"docker_context_dir": "/elsewhere"}).env_id
    assert plain.env_id == spec(IMAGE | {"secrets": {"token": "another"}}).env_id
    assert plain.env_id != spec(IMAGE | {"secrets": {"other": "hush-hush"}}).env_id
    assert plain.env_id != spec(IMAGE | {"build_args": {"WHO": "Eve"}}).env_id


async def test_an_image_that_runs_itself_gets_nothing_added(builder, engine, lines):
    itself = spec({"image": "docker.io/library/nginx:1", "cmd": "nginx -g 'daemon off;'", "use_isolate": False})
    assert itself.runs_itself
    built = await build(builder, itself, lines)
    assert built.container is not None
    assert built.container.cmd == ("nginx", "-g", "daemon off;")
    (call,) = engine.calls("build")
    assert call["dockerfile"] == "FROM docker.io/library/nginx:1\n"


async def test_a_build_that_fails_says_so_in_the_engines_words_and_leaves_nothing(builder, tmp_path, lines):
    broken = spec({"image": "registry.example/does-not-exist"})
    with pytest.raises(FailedPrecondition, match="there is no such image"):
        await build(builder, broken, lines)
    assert builder.find(broken) is None
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize(
    "image",
    [
        {},
        {"dockerfile_str": " "},
        {"dockerfile_str": "FROM a", "image": "b"},
        {"image": "a\nRUN evil"},
        {"image": "--privileged"},
        {"image": "a", "unheard_of": 1},
        {"image": "a", "build_args": {"PATH": "/x"}},
        {"image": "a", "build_args": {"A": 1}},
        {"image": "a", "secrets": {"x,src=/etc/shadow": "v"}},
        {"image": "a", "registries": {"r": {"username": "u"}}},
        {"image": "a", "cmd": "'"},
        {"image": "a", "entrypoint": [1]},
    ],
)
async def test_a_wrong_configuration_is_refused_before_anything_starts(builder, engine, lines, image):
    with pytest.raises(InvalidArgument) as fault:
        await build(builder, spec(image), lines)
    assert fault.value.field == "environments"
    assert not engine.record.exists()


async def test_files_outside_of_the_context_and_missing_ones(builder, files, lines):
    outside = spec()
    outside = replace(
        outside,
        configuration={**outside.configuration, "context_files": [["../x.txt", files.put("x.txt", "x").hash]]},
    )
    with pytest.raises(InvalidArgument, match="outside"):
        await build(builder, outside, lines)
    with pytest.raises(FailedPrecondition, match="not uploaded"):
        await build(builder, spec().with_context([AppFile(hash="0" * 64, relative_path="x.txt")]), lines)


async def test_files_that_cannot_be_fetched_now_are_not_called_missing(builder, files, lines, monkeypatch):
    def path(account: AccountId, digest: str) -> Path:
        raise Unavailable("the content in s3://box cannot be used")

    monkeypatch.setattr(files, "path", path)
    with pytest.raises(Unavailable, match="s3://box cannot be used"):
        await build(builder, spec().with_context([AppFile(hash="0" * 64, relative_path="x.txt")]), lines)


async def test_without_an_engine_the_answer_names_what_is_missing(tmp_path, files, lines):
    docker = make_engine(tmp_path / "other", "docker")
    variables = docker.variables(CONTAINERS_BROKEN="Cannot connect to the daemon")
    builder = builder_with(tmp_path, files, variables)
    with pytest.raises(
        Unimplemented, match=r"podman is not installed; `docker --version` failed \(Cannot connect.*virtualenv"
    ):
        await build(builder, spec(), lines)
    assert docker.calls("build") == []
    assert lines == []


async def test_each_kind_goes_to_its_builder(builder, tmp_path, lines):
    virtualenvs = VirtualenvBuilder(tmp_path / "environments", tmp_path / "cache", SANDBOXES, {})
    builders = Builders(virtualenvs, builder)
    assert (await build(builders, spec(), lines)).container is not None
    assert builders.find(spec()) is not None
    with pytest.raises(Unimplemented, match="conda"):
        await build(builders, EnvironmentSpec(kind="conda", configuration={}), lines)
    await builders.close()


STAY = "sleep 1000"
CROWD = "for n in $(seq 60); do sleep 1000 & done; wait"
HUNGRY = f"exec {sys.executable} -c 'import threading; held = bytes(range(256)) * (2 << 20); threading.Event().wait()'"
WRITER = "head -c 64000000 /dev/zero > $TMPDIR/large; sleep 1000"


@pytest.mark.parametrize(
    ("step", "limits", "told"),
    [
        (STAY, {"seconds": 2.0}, "took longer than 2 s"),
        (CROWD, {"processes": 40}, "had more than 40 processes"),
        (HUNGRY, {"memory_mib": 300}, "used more than 300 MiB of memory"),
        (WRITER, {"disk_mib": 32}, "wrote more than 32 MiB"),
    ],
)
async def test_a_build_ends_at_its_limits(tmp_path, engine, files, lines, step, limits, told):
    variables = engine.variables(CONTAINERS_STEP=step, CONTAINERS_STORAGE=str(tmp_path))
    trials = EngineTrials(variables, tmp_path / "containers")
    builder = ContainerBuilder(tmp_path / "images", files, variables, trials, BuildLimits(**limits))
    with pytest.raises(FailedPrecondition, match=told):
        await build(builder, spec(), lines)
    assert builder.find(spec()) is None
    assert list((tmp_path / "images").iterdir()) == []
