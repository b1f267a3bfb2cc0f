"""Builds in sandboxes: their limits, and that packages cannot manipulate an environment."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fal_runner.isolation.interpreters import of_interpreter
from fal_runner.isolation.levels import Isolation
from fal_server.builders import BuildSandboxes, VirtualenvBuilder
from fal_server.core.builds import BuildLimits
from fal_server.core.faults import FailedPrecondition
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import EnvironmentSpec
from fal_server.engines.local import RunnerGroups
from tests.builders.conftest import SANDBOXES
from tests.support.source_packages import requirements, served, write_source


async def drop(entry: LogEntry) -> None:
    """Ignore a line."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index").mkdir()
    with served(tmp_path / "index") as address:
        yield address


async def build(
    tmp_path: Path, index: str, code: str, environ: dict[str, str], sandboxes: BuildSandboxes = SANDBOXES
) -> Path:
    """Build an environment with a package, and return it. The package's build runs this code."""
    name = write_source(tmp_path / "index", code)
    layers = requirements(tmp_path / "index", index, name)
    spec = EnvironmentSpec(kind="virtualenv", configuration={"requirements": layers})
    # Its own cache, so that no build finds what another one left.
    own = {**environ, "UV_CACHE_DIR": str(tmp_path / "uv")}
    builder = VirtualenvBuilder(tmp_path / "environments", tmp_path / "unused", sandboxes, own)
    return (await builder.build(spec, force=False, log=drop)).python.parents[1]


def within(**limits: float) -> BuildSandboxes:
    return replace(SANDBOXES, limits=BuildLimits(**limits))  # type: ignore[arg-type]


STAY = "\nimport threading\nthreading.Event().wait()\n"
HUNGRY = "held = bytearray(512 * 1024 * 1024)\nheld[::4096] = bytes(len(held[::4096]))\n"
CROWD = "import subprocess\n[subprocess.Popen(['sleep', '600']) for _ in range(40)]\n"
WRITER = "import os\nfile = open(os.environ['HOME'] + '/large', 'wb')\nos.posix_fallocate(file.fileno(), 0, 64 << 20)\n"
CACHE_WRITER = WRITER.replace("'HOME'", "'UV_CACHE_DIR'")


@pytest.mark.parametrize(
    ("code", "limits", "told"),
    [
        (HUNGRY + STAY, {"memory_mib": 200}, "used more than 200 MiB of memory"),
        (CROWD + STAY, {"processes": 30}, "had more than 30 processes"),
        (WRITER + STAY, {"disk_mib": 48}, "wrote more than 48 MiB"),
        (CACHE_WRITER + STAY, {"disk_mib": 48}, "wrote more than 48 MiB"),
        (STAY, {"seconds": 3.0}, "took longer than 3 s"),
    ],
)
async def test_a_build_ends_at_its_limits(tmp_path, index, environ, code, limits, told):
    with pytest.raises(FailedPrecondition, match=told):
        await build(tmp_path, index, code, environ, within(**limits))
    assert list((tmp_path / "environments").iterdir()) == []


async def test_a_control_group_bounds_the_memory_of_a_build(tmp_path, index, environ):
    groups = RunnerGroups.detect(tmp_path)
    if "cgroup" not in groups.enforced["memory"]:
        return  # measured, as above
    sandboxes = replace(within(memory_mib=200), bounds=groups)
    with pytest.raises(FailedPrecondition, match="used more than 200 MiB of memory"):
        await build(tmp_path, index, HUNGRY + "return {}", environ, sandboxes)


PLANTS = [
    "os.symlink('{secret}', '{environment}/.fal-used')",
    "os.symlink('{secret}', '{environment}/.fal-built.draft')",
    "open('{environment}/pyvenv.cfg', 'w').write('home = {secret}')",
    "os.unlink('{environment}/bin/python'); os.symlink('{secret}', '{environment}/bin/python')",
    "os.rename('{environment}/bin', '{environment}/moved'); os.symlink('moved', '{environment}/bin')",
    "os.rename('{environment}/pyvenv.cfg', '{environment}/moved'); os.symlink('moved', '{environment}/pyvenv.cfg')",
    "os.mkfifo('{environment}/.fal-used')",
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("level", [Isolation.PROCESS, Isolation.NONE])
async def test_nothing_that_the_controller_follows_can_be_planted(tmp_path, index, environ, plant, level):
    secret = tmp_path / "state" / "bin" / "admin.key"
    secret.parent.mkdir(parents=True)
    secret.write_text("secret")
    (tmp_path / "environments").mkdir()
    before = secret.stat()
    there = "import glob, os\nenvironment, = glob.glob({root!r} + '/*-1')\n".format(root=str(tmp_path / "environments"))
    quoted = plant.replace("'{environment}", "environment + '").replace("{secret}", str(secret))
    with pytest.raises(FailedPrecondition, match="a package changed the environment's interpreter"):
        await build(tmp_path, index, f"{there}{quoted}\nreturn {{}}", environ, replace(SANDBOXES, isolation=level))
    after = secret.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert list((tmp_path / "environments").iterdir()) == []


async def test_a_build_sees_what_the_operators_variables_name(tmp_path, index, environ):
    settings, links, state = tmp_path / "operator" / "uv.toml", tmp_path / "wheels", tmp_path / "state"
    for directory in (settings.parent, links, state):
        directory.mkdir()
    settings.write_text(f'find-links = ["{links}"]\n')
    paths = [str(settings), str(links), str(state)]
    code = f"import os\nreturn {{'seen.txt': str([os.path.exists(path) for path in {paths}])}}"
    made = await build(tmp_path, index, code, {**environ, "UV_CONFIG_FILE": str(settings)})
    (seen,) = made.glob("lib/*/site-packages/seen.txt")
    assert seen.read_text() == "[True, True, False]"


@pytest.mark.parametrize("named", ["/", "{state}", "{above}"])
async def test_no_variable_brings_the_state_directory_into_a_sandbox(tmp_path, index, environ, named):
    state = tmp_path / "machine" / "state"
    state.mkdir(parents=True)
    (state / "admin.key").write_text("secret")
    path = named.format(state=state, above=state.parent)
    code = f"import os\nreturn {{'seen.txt': str(os.path.exists('{state}/admin.key'))}}"
    sandboxes = replace(SANDBOXES, hidden=[tmp_path / "elsewhere", state])
    made = await build(tmp_path, index, code, {**environ, "SSL_CERT_DIR": path}, sandboxes)
    (seen,) = made.glob("lib/*/site-packages/seen.txt")
    assert seen.read_text() == "False"


async def test_each_build_has_a_home_of_its_own(tmp_path, index, environ):
    for number in range(2):
        code = f"""
            import os, pathlib
            home = pathlib.Path(os.environ["HOME"])
            found = sorted(path.name for path in home.iterdir())
            (home / "settings").write_text("poison")
            return {{"seen.txt": str(found), "number.txt": "{number}"}}
            """
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "index").mkdir()
        with served(tmp_path / str(number) / "index") as address:
            made = await build(tmp_path / str(number), address, code, environ)
        (seen,) = made.glob("lib/*/site-packages/seen.txt")
        assert seen.read_text() == "[]"


async def test_a_build_keeps_no_descriptor_of_the_controller(tmp_path, index, environ):
    """A descriptor of an outside directory would lead out of the sandbox."""
    code = """
        import os
        found = [os.readlink(f"/proc/{pid}/fd/{name}") for pid in [os.getpid(), os.getppid()]
                 for name in os.listdir(f"/proc/{pid}/fd") if os.path.lexists(f"/proc/{pid}/fd/{name}")]
        return {"seen.txt": "\\n".join(found)}
        """
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        made = await build(tmp_path, index, code, environ)
    finally:
        os.close(handle)
    (seen,) = made.glob("lib/*/site-packages/seen.txt")
    assert not [path for path in seen.read_text().splitlines() if path in {str(tmp_path), str(made)}]
    assert await asyncio.to_thread(seen.exists)


@pytest.mark.parametrize("taken", [False, True])
async def test_nothing_of_a_build_is_left_in_the_cache(tmp_path, index, environ, taken):
    if taken:  # as by another controller that shares the cache
        code = "import os\nreturn {'seen.txt': str(os.path.exists(os.environ['UV_CACHE_DIR'] + '/mark'))}"
    else:
        code = "return {'seen.txt': 'True'}"
    cache = tmp_path / "uv"
    cache.mkdir()
    (cache / "mark").write_text("")
    if taken:
        name = write_source(tmp_path / "index", code)
        layers = requirements(tmp_path / "index", index, name)
        spec = EnvironmentSpec(kind="virtualenv", configuration={"requirements": layers})
        (cache / f"{spec.env_id}-1").mkdir()
        handle = os.open(cache / f"{spec.env_id}-1", os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    made = await build(tmp_path, index, code, environ)
    (seen,) = made.glob("lib/*/site-packages/seen.txt")
    assert seen.read_text() == "True"
    left = [path for path in cache.iterdir() if path.name.endswith("-1")]
    assert left == ([cache / made.name] if taken else [])
    if taken:
        os.close(handle)
        VirtualenvBuilder(tmp_path / "environments", tmp_path / "unused", SANDBOXES, {"UV_CACHE_DIR": str(cache)})
        assert not (cache / made.name).exists(), "nobody builds there any more"


LEFT = {
    "a file": "open(path, 'w').close()",
    "a pipe": "os.mkfifo(path)",
    "a link to nothing": "os.symlink('nowhere', path)",
    "a link to itself": "os.symlink(os.path.basename(path), path)",
    "a closed directory": "os.makedirs(path + '/x'); os.chmod(path, 0)",
    "a deep directory": (
        "os.mkdir(path); os.chdir(path)\nfor _ in range(1200):\n    os.mkdir('d' * 50); os.chdir('d' * 50)"
    ),
}


@pytest.mark.parametrize("what", LEFT)
async def test_nothing_that_a_package_leaves_in_the_cache_stops_the_next_controller(tmp_path, index, environ, what):
    name, cache = f"{'0' * 64}-1", tmp_path / "uv"
    code = f"import os\npath = os.environ['UV_CACHE_DIR'] + '/{name}'\n{LEFT[what]}\nos.chdir('/')\nreturn {{}}"
    await build(tmp_path, index, code, environ)
    assert name in os.listdir(cache)  # noqa: PTH208 - it may be a link to nothing
    VirtualenvBuilder(
        tmp_path / "environments", tmp_path / "unused", SANDBOXES, {**environ, "UV_CACHE_DIR": str(cache)}
    )
    assert name not in os.listdir(cache)  # noqa: PTH208


PLANTED = {
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("name", ["pyvenv.cfg", ".fal-built", ".fal-used"])
async def test_the_controller_waits_for_nothing_in_an_environment(tmp_path, index, environ, name, what):
    """Code at the level `none` can leave it there. A controller with sandboxes starts later."""
    made = await build(tmp_path, index, "return {}", environ)
    (made / name).unlink(missing_ok=True)
    PLANTED[what](made / name)
    builder = VirtualenvBuilder(tmp_path / "environments", tmp_path / "unused", SANDBOXES, environ)
    (generation,) = builder.generations()
    places = list(of_interpreter(made / "bin" / "python"))
    assert all("zero" not in source for _, source, _ in places)
    assert generation.usable is (name != ".fal-built")
    assert await builder.delete(generation)
    assert not made.exists()
