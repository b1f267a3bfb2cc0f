"""An app cannot tell that it runs in a warm worker. The worker leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal_runner.process.proc import has_variable, process_info, tag_of
from fal_runner.worker.process_tag import TAG_VARIABLE
from fal_server.core.lifecycle import Event
from fal_server.engines.local.spawn import start_process, warm_key_of
from fal_server.engines.local.warm_pool import WarmPool, WarmShim
from tests.engines.conftest import program_of

SECRET = "correct-horse-battery"
OWN = ("FAL_RUNNER_ID", "FAL_RUNNER_MARK", "SHLVL", "_")  # what differs for every runner


def import_these(*modules: str) -> Any:
    def app() -> Any:
        import importlib
        import sys

        for module in modules:
            importlib.import_module(module)
        return set(sys.modules)

    return app


def describe() -> dict[str, Any]:
    """Return everything by which an app could recognize a cold start."""
    import gc
    import locale
    import os
    import signal
    import socket
    import subprocess
    import sys
    import threading
    from pathlib import Path

    shown = subprocess.run(["env", "-0"], capture_output=True, check=True).stdout.split(b"\0")
    return {
        "environ": dict(os.environ),
        "of a child": dict(entry.decode().split("=", 1) for entry in shown if entry),
        "argv": sys.argv,
        "working directory": str(Path.cwd()),
        "files": sorted(map(str, Path().iterdir())),
        "path": sys.path,
        "session": os.getsid(0) == os.getpid(),
        "streams": [type(stream).__name__ for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "hooks": [type(hook).__name__ for hook in sys.meta_path],
        "environ's kind": type(os.environ).__name__,
        "listen": socket.socket.listen.__qualname__,
        "locale": locale.getlocale(),
        "threads": threading.active_count(),
        "signals": {n: str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)},
        "umask": os.umask(0o077),
        "garbage": gc.isenabled(),
        "data": sorted(map(str, Path(os.environ["FAL_DATA_DIR"]).iterdir())),
        "app": os.environ["FAL_APP_DIR"],
        "interpreter": (sys.executable, sys.prefix, list(sys.flags)),
    }


async def test_a_runner_gets_the_worker_that_waits_and_cannot_tell(warm: Any) -> None:
    options: dict[str, Any] = {"variables": {"PASSPHRASE": SECRET}, "redact": (SECRET,), "files": {"a.txt": b"a"}}
    plain = await warm.run(describe, **options)
    cold = warm.used
    first = await warm.worker()
    waited = await warm.run(describe, **options)
    assert warm.used == first != cold
    for seen in (plain, waited):
        assert seen["environ"]["PASSPHRASE"] == seen["of a child"]["PASSPHRASE"] == SECRET
        for variables in (seen["environ"], seen["of a child"]):
            assert carries_a_mark(variables)
            for name in OWN:
                variables.pop(name, None)
        if seen["app"] != "/app":  # the kernel allows no view of its own
            seen["app"] = seen["environ"]["FAL_APP_DIR"] = seen["of a child"]["FAL_APP_DIR"] = ""
            seen["working directory"], seen["path"] = "", seen["path"][1:]
        seen["path"] = [path.replace(path, "runner") if "/runners/" in path else path for path in seen["path"]]
    assert waited == plain


def carries_a_mark(variables: dict[str, str]) -> bool:
    return set(variables["FAL_RUNNER_MARK"]) != {"0"}


async def test_what_was_imported_is_there_and_nothing_of_another_runner(warm: Any) -> None:
    warm.environment.add("library", "import os\nstate = []\nborn = os.getpid()\n")

    def app() -> Any:
        import os
        import sys

        ahead = "library" in sys.modules
        import library

        library.state.append("changed by a runner")
        return os.getpid(), library.born, ahead, len(library.state)

    pid, born, ahead, changes = await warm.run(app)
    assert (pid, ahead, changes) == (born, False, 1)
    used = {warm.used}
    for _ in range(2):
        waiting = await warm.worker(*used)
        pid, born, ahead, changes = await warm.run(app)
        assert (warm.used, pid, ahead, changes) == (waiting, born, True, 1)
        used.add(warm.used)


async def test_nothing_secret_is_seen_from_outside_or_written(warm: Any) -> None:
    async def wait(exposed_port: int) -> None:
        import asyncio
        import os

        print("the passphrase is", os.environ["PASSPHRASE"], flush=True)
        await asyncio.start_server(lambda reader, writer: None, "0.0.0.0", exposed_port)
        await asyncio.Event().wait()

    await warm.run(import_these())
    waiting = await warm.worker()
    launch = warm.launch(wait, http=True, variables={"PASSPHRASE": SECRET}, redact=(SECRET,))
    runner = await warm.rig.start_launch(launch)
    await warm.rig.until(runner, Event.READY)
    await warm.rig.lines.until(runner.runner_id, "the passphrase is ******")
    program = program_of(waiting)
    assert has_variable(program, TAG_VARIABLE, tag_of(runner.token)), "whoever looks from outside sees whose it is"
    for place in ("environ", "cmdline"):
        assert SECRET.encode() not in of_process(program, place)
    files = [path for path in warm.rig.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    shown = await warm.rig.run(runner, "sh", "-c", "echo $PASSPHRASE; command -v python; ls -d $FAL_APP_DIR; pwd")
    assert shown.stdout.decode().split("\n")[:2] == [SECRET, str(warm.environment.python)]
    assert warm.rig.programs(runner) == [program]
    assert await warm.rig.restart(adopt=runner, warm_workers=1), "a later controller finds it"
    await warm.rig.engine.stop(runner, 5)
    gone = await warm.rig.until(runner, Event.GONE)
    assert gone.exit_code == 128 + signal.SIGTERM
    assert warm.rig.alive(runner) == []


def of_process(pid: int, what: str) -> bytes:
    return Path(f"/proc/{pid}/{what}").read_bytes()


@pytest.mark.parametrize("who", ["worker", "shim"])
async def test_one_that_died_is_no_obstacle(warm: Any, who: str) -> None:
    await warm.run(import_these())
    waiting = await warm.worker()
    info = process_info(waiting)
    assert info is not None
    shim = info.parent
    handle = os.pidfd_open(waiting)
    os.kill(waiting if who == "worker" else shim, signal.SIGKILL)
    await ended(handle)
    await warm.run(describe)
    assert warm.used != waiting


async def ended(handle: int) -> None:
    """Wait until the process of a pidfd has ended."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, over.set)
    async with asyncio.timeout(30):
        await over.wait()
    loop.remove_reader(handle)
    os.close(handle)


async def test_a_waiting_worker_ends_with_its_controller(rig: Any, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    warmed = asyncio.Event()
    with theirs:
        warm_shim = WarmShim(start_process(theirs), ours, warmed=warmed.set)
    recipe = {"python": sys.executable, "directory": str(tmp_path), "env": {}, "imports_file": str(tmp_path / "none")}
    warm_shim.send(recipe)
    async with asyncio.timeout(30):
        await warmed.wait()
    assert warm_shim.worker is not None
    handles = [os.pidfd_open(warm_shim.worker), os.pidfd_open(warm_shim.pid)]
    warm_shim.release()  # as by the kernel when the controller is killed
    for handle in handles:
        await ended(handle)
    await asyncio.to_thread(os.waitpid, warm_shim.pid, 0)


async def test_those_used_last_have_a_worker_and_others_none(warm: Any) -> None:
    other = warm.another_environment()
    await warm.run(import_these())
    first = await warm.worker()
    handle = os.pidfd_open(first)
    await warm.run(import_these(), environment=other)
    second = await warm.worker(first)
    await ended(handle)
    assert warm.rig.host.warm_pool.workers == [second]
    assert of_process(program_of(second), "cmdline").startswith(os.fsencode(other.python))
    places = warm.rig.root / "warm"
    assert len(list(places.glob("*"))) == 1
    await warm.rig.restart()
    assert not places.exists()


async def test_an_environment_that_was_built_again_has_workers_of_its_own(warm: Any) -> None:
    warm.environment.add("library", "version = 1\n")

    def app() -> Any:
        import library

        return library.version

    assert await warm.run(app) == 1
    await warm.worker()
    again = warm.another_environment()
    again.add("library", "version = 2\n")
    assert await warm.run(app, environment=again) == 2


async def test_one_whose_environment_nobody_uses_ends(rig: Any, warm: Any, tmp_path: Path) -> None:
    warm_key = warm_key_of(await warm.rig.prepared(warm.launch(describe)), warm.rig.sandboxes, tmp_path / "imports")
    warm_pool = WarmPool(0, 1, start_process, tmp_path / "places", rest_seconds=0.0, idle_seconds=0.5)
    assert warm_pool.take(warm_key) is None
    places = tmp_path / "places"
    async with asyncio.timeout(60):
        while not places.exists():  # noqa: ASYNC110 - a directory tells nobody
            await asyncio.sleep(0)
        while list(places.iterdir()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    await warm_pool.close()


async def test_no_secret_is_in_what_a_worker_is_started_ahead_with(warm: Any, tmp_path: Path) -> None:
    secrets = {"SSL_CERT_FILE": SECRET, "PASSPHRASE": SECRET}
    launch = warm.launch(describe, variables=secrets, redact=(SECRET,))
    warm_key = warm_key_of(await warm.rig.prepared(launch), warm.rig.sandboxes, tmp_path / "imports")
    assert warm_key is not None
    assert SECRET not in warm_key.env.values()
    public = warm_key_of(await warm.rig.prepared(replace(launch, redact=())), warm.rig.sandboxes, tmp_path / "imports")
    assert public is not None
    assert public.env["SSL_CERT_FILE"] == SECRET
    assert "PASSPHRASE" not in public.env


async def test_after_a_burst_as_many_wait_as_it_took(warm: Any) -> None:
    async def run() -> int:
        runner = await warm.rig.start_launch(warm.launch(import_these()))
        await warm.rig.until(runner, Event.GONE)
        return await warm.process_of(runner)

    root, warm_pool = warm.rig.root, warm.rig.host.warm_pool
    warm_key = warm_key_of(await warm.rig.prepared(warm.launch(import_these())), warm.rig.sandboxes, root / "imports")
    for _ in range(3):
        assert warm_pool.take(warm_key) is None
    waiting = await workers(warm_pool, 3)
    assert set(await asyncio.gather(*(run() for _ in range(3)))) == waiting


async def workers(warm_pool: WarmPool, count: int) -> set[int]:
    async with asyncio.timeout(60):
        while len(found := set(warm_pool.workers)) < count:
            warm_pool.warmed.clear()
            await warm_pool.warmed.wait()
    return found


async def test_without_memory_for_more_one_waits(warm: Any, tmp_path: Path) -> None:
    warm_key = warm_key_of(await warm.rig.prepared(warm.launch(describe)), warm.rig.sandboxes, tmp_path / "imports")
    assert warm_key is not None
    free: list[float] = [0.0]
    warm_pool = WarmPool(0, 1, start_process, tmp_path / "places", rest_seconds=0.0, free_mib=lambda: free[0])
    for _ in range(3):
        assert warm_pool.take(warm_key) is None
    await workers(warm_pool, 1)
    await asyncio.sleep(0)  # it has already started what it would start now
    assert len(list((tmp_path / "places").iterdir())) == 1
    free[0] = 1e6
    warm_pool.learn(warm_key)
    await workers(warm_pool, 3)
    free[0] = -1e6
    warm_pool.learn(warm_key)
    async with asyncio.timeout(60):
        while len(list((tmp_path / "places").iterdir())) > 1:  # noqa: ASYNC110 - a directory tells nobody
            await asyncio.sleep(0)
    await warm_pool.close()
