"""Real builds of environments: shared, cancelled, killed, failed and repeated."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fal_server.builders import VirtualenvBuilder
from fal_server.core.faults import FailedPrecondition, InvalidArgument, Unavailable, Unimplemented
from fal_server.core.logs import LogLevel, LogSource
from fal_server.core.revisions import EnvironmentSpec
from tests.builders.conftest import PASSWORD, SANDBOXES

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def spec(*requirements, kind="virtualenv", **more):
    return EnvironmentSpec(kind=kind, configuration={"requirements": list(requirements), "resolver": "uv", **more})


class Log:
    """Collects the lines of a build."""

    def __init__(self):
        self.entries = []

    async def __call__(self, entry):
        self.entries.append(entry)

    @property
    def text(self):
        return "\n".join(entry.message for entry in self.entries)


async def run(*command):
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def processes_naming(text: str) -> list[Path]:
    """List the processes whose arguments contain a text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if text.encode() in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def installer_of(root: Path) -> Path:
    """Find the running build's installer among the processes of its sandbox."""
    (found,) = [
        process
        for process in processes_naming(str(root))
        if (process / "cmdline").read_bytes().split(b"\0")[0].endswith(b"/uv")
    ]
    return found


async def test_built_found_and_usable(builder, root, packages, environ, tmp_path):
    wanted = spec(["six"], [packages.requirement], python_version=OWN)
    log = Log()
    assert builder.find(wanted) is None
    built = await builder.build(wanted, force=False, log=log)
    assert built.env_id == wanted.env_id
    assert built.python.is_relative_to(root / f"{wanted.env_id}-1")
    assert (await run(built.python, "-c", "import six, cloudpickle, sys; print(sys.prefix)")).strip() == str(
        built.python.parents[1]
    )
    assert str(built.python.parents[1]) in await run(built.python.with_name("fal-test-hello"))
    (module,) = built.python.parents[1].glob("lib/*/site-packages/six.py")
    assert module.stat().st_nlink > 1, "is a link to what is in the cache"
    assert list(built.python.parents[1].glob("lib/*/site-packages/__pycache__/six.*.pyc")), "is compiled"
    assert [entry.sequence for entry in log.entries] == list(range(1, len(log.entries) + 1))
    assert {(entry.runner_id, entry.source) for entry in log.entries} == {("", LogSource.BUILD)}
    assert "six==" in log.text
    assert builder.find(wanted) == built
    again = Log()
    assert await builder.build(wanted, force=False, log=again) == built
    assert again.entries == []
    assert VirtualenvBuilder(root, tmp_path, SANDBOXES, environ).find(wanted) == built
    assert not (tmp_path / "unused-cache").exists(), "UV_CACHE_DIR goes before"


async def test_passwords_and_keys_stay_secret(builder, root, packages):
    packages.go_on.clear()
    log = Log()
    task = asyncio.create_task(builder.build(spec(packages.requirement), force=False, log=log))
    await packages.wait_until_asked()
    installer = installer_of(root)
    for process in processes_naming(str(root)):
        assert PASSWORD.encode() not in (process / "cmdline").read_bytes()
    variables = (installer / "environ").read_bytes().split(b"\0")
    assert [entry for entry in variables if b"not-for-uv" in entry] == []
    assert b"HOME=/build" in variables, "the build's own"
    packages.go_on.set()
    built = await task
    assert PASSWORD not in log.text
    for path in built.python.parents[1].rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


async def test_many_askers_share_one_build(builder, root, packages):
    packages.go_on.clear()
    wanted, logs = spec(packages.requirement), [Log() for _ in range(5)]
    callers = [asyncio.create_task(builder.build(wanted, force=False, log=log)) for log in logs[:3]]
    await packages.wait_until_asked()
    callers += [asyncio.create_task(builder.build(wanted, force=True, log=log)) for log in logs[3:]]
    await asyncio.sleep(0)
    callers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await callers[0]
    packages.go_on.set()
    results = await asyncio.gather(*callers[1:])
    assert {result.python for result in results} == {root / f"{wanted.env_id}-1" / "bin" / "python"}
    assert all(log.entries == logs[1].entries for log in logs[2:])
    assert logs[0].entries == logs[1].entries[: len(logs[0].entries)]


async def test_the_last_asker_takes_the_build_along(builder, root, packages):
    packages.go_on.clear()
    wanted = spec(packages.requirement)
    callers = [asyncio.create_task(builder.build(wanted, force=False, log=Log())) for _ in range(2)]
    await packages.wait_until_asked()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert processes_naming(str(root)) == []
    assert list(root.iterdir()) == []
    packages.go_on.set()
    assert await builder.build(wanted, force=False, log=Log())


async def test_an_asker_whose_log_breaks_harms_nobody(builder, packages):
    packages.go_on.clear()

    async def broken(entry):
        raise ConnectionError("hung up")

    wanted = spec(packages.requirement)
    good = asyncio.create_task(builder.build(wanted, force=False, log=Log()))
    await packages.wait_until_asked()
    with pytest.raises(ConnectionError, match="hung up"):
        await builder.build(wanted, force=False, log=broken)
    packages.go_on.set()
    assert await good == builder.find(wanted)


async def test_close_gives_up(builder, root, packages):
    packages.go_on.clear()
    caller = asyncio.create_task(builder.build(spec(packages.requirement), force=False, log=Log()))
    await packages.wait_until_asked()
    await builder.close()
    with pytest.raises(Unavailable, match="controller is stopping"):
        await caller
    assert list(root.iterdir()) == []


async def test_a_failed_build_says_why_and_leaves_nothing(builder, root, packages):
    log = Log()
    wrong = packages.requirement.replace("-1.0-", "-2.0-")
    with pytest.raises(FailedPrecondition, match=r"(?s)could not be installed:.*fal.test.hello") as caught:
        await builder.build(spec("six", wrong), force=False, log=log)
    assert PASSWORD not in caught.value.message + log.text
    assert any(entry.level is LogLevel.ERROR for entry in log.entries)
    assert list(root.iterdir()) == []
    assert builder.find(spec("six", wrong)) is None


async def test_force_leaves_the_old_generation_to_its_runners(builder, root):
    wanted = spec("six")
    old = await builder.build(wanted, force=False, log=Log())
    new = await builder.build(wanted, force=True, log=Log())
    assert old.python.exists()
    assert new.python == root / f"{wanted.env_id}-2" / "bin" / "python"
    assert builder.find(wanted) == new
    new.python.unlink()
    assert builder.find(wanted) == old, "an environment without its interpreter is none"
    (old.python.parents[1] / ".fal-built").write_text("as another version does it")
    assert builder.find(wanted) is None


BUILD = """
import asyncio, json, os, sys
from pathlib import Path
from fal_runner.isolation.levels import Isolation
from fal_server.builders import BuildSandboxes, VirtualenvBuilder
from fal_server.core.revisions import EnvironmentSpec

async def log(entry):
    pass

async def main():
    root, requirement = sys.argv[1], sys.stdin.readline().strip()
    spec = EnvironmentSpec(kind="virtualenv", configuration=json.loads(requirement))
    sandboxes = BuildSandboxes(isolation=Isolation.PROCESS)
    builder = VirtualenvBuilder(Path(root), Path(root).with_name("unused") / "cache", sandboxes)
    await builder.build(spec, force=False, log=log)

asyncio.run(main())
"""


async def test_a_killed_controller_leaves_nothing_that_counts(root, packages, environ, tmp_path):
    packages.go_on.clear()
    configuration = spec(packages.requirement)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUILD, str(root), stdin=asyncio.subprocess.PIPE, env=environ
    )
    assert process.stdin is not None
    quoted = packages.requirement.replace('"', '\\"')
    process.stdin.write(f'{{"requirements": ["{quoted}"], "resolver": "uv"}}\n'.encode())
    await packages.wait_until_asked()
    installer = psutil.Process(int(installer_of(root).name))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    transport: Any = vars(process)["_transport"]
    transport.close()
    await asyncio.to_thread(installer.wait, 60)

    builder = VirtualenvBuilder(root, tmp_path, SANDBOXES, environ)
    assert builder.find(configuration) is None
    assert list(root.iterdir()) == []
    packages.go_on.set()
    built = await builder.build(configuration, force=False, log=Log())
    assert list(root.iterdir()) == [built.python.parents[1]]


async def test_a_build_of_another_controller_is_left_alone(root, packages, environ, tmp_path, builder):
    packages.go_on.clear()
    task = asyncio.create_task(builder.build(spec(packages.requirement), force=False, log=Log()))
    await packages.wait_until_asked()
    before = sorted(root.iterdir())
    VirtualenvBuilder(root, tmp_path, SANDBOXES, environ)
    assert sorted(root.iterdir()) == before
    packages.go_on.set()
    assert (await task).python.exists()


async def test_a_missing_interpreter_is_named_with_those_that_are_here(builder, root):
    with pytest.raises(FailedPrecondition, match=rf"no Python 3\.99 on this machine: it has .*{OWN}"):
        await builder.build(spec(python_version="3.99"), force=False, log=Log())
    assert list(root.iterdir()) == []


async def test_an_exact_version_is_found_though_it_is_on_no_path(root, tmp_path, environ):
    builder = VirtualenvBuilder(
        root, tmp_path / "unused-cache", SANDBOXES, {**environ, "PATH": "/nowhere", "HOME": "/"}
    )
    built = await builder.build(spec(python_version=sys.version.split()[0]), force=False, log=Log())
    assert (await run(built.python, "-V")).split()[1] == sys.version.split()[0]


@pytest.mark.parametrize("kind", ["conda", "local"])
async def test_other_kinds_are_not_built_here(builder, kind):
    with pytest.raises(Unimplemented, match=f"'{kind}'.*virtualenv"):
        await builder.build(spec(kind=kind), force=False, log=Log())


async def test_what_is_wrong_is_refused_before_anything_starts(builder, root):
    with pytest.raises(InvalidArgument, match="unknown"):
        await builder.build(spec(kind="virtualbox"), force=False, log=Log())
    with pytest.raises(InvalidArgument, match="'-r'"):
        await builder.build(spec("-r /etc/passwd"), force=False, log=Log())
    assert list(root.iterdir()) == []


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file/environments cannot be used"):
        VirtualenvBuilder(tmp_path / "file" / "environments", tmp_path, SANDBOXES)


async def test_generations_are_told_and_deleted(builder, root, environ, tmp_path):
    wanted = spec(python_version=OWN)
    old = await builder.build(wanted, force=False, log=Log())
    new = await builder.build(wanted, force=True, log=Log())
    first, second = sorted(builder.generations(), key=lambda generation: generation.number)
    assert [(g.env_id, g.number, g.usable) for g in (first, second)] == [(wanted.env_id, n, True) for n in (1, 2)]
    assert first.finished_at <= second.finished_at
    assert await builder.delete(first)
    assert not old.python.exists()
    assert not await builder.delete(first), "it is gone already"
    assert builder.find(wanted) == new
    assert not await builder.delete(second), "it was used since it was looked at"
    assert builder.find(wanted) == new
    (seen,) = builder.generations()
    assert seen.used_at > second.used_at
    # After a kill between the two steps of a deletion the environment counts as unfinished.
    (root / seen.name / ".fal-built").unlink()
    assert VirtualenvBuilder(root, tmp_path, SANDBOXES, environ).generations() == []
    assert not new.python.exists()
