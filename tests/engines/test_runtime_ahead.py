"""Prewarmed workers import the modules that serve apps. An app cannot tell."""

from __future__ import annotations

import asyncio
import io
import pickle
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal.deploy.preparation import prepare
from fal.deploy.sources import METHOD
from fal_runner.worker.prewarm import RUNTIME_NAME, RUNTIME_SUFFIX
from fal_server.core.containers import CONTAINER
from fal_server.core.lifecycle import Event
from fal_server.core.revisions import Payload
from fal_server.engines.local.runtimes import keep_runtime
from fal_server.ports import ExpectedStart
from tests.support.waiting import until

APP = """
import os
import sys

AHEAD = "fal.app.server" in sys.modules

import fal


@fal.function()
def look():
    from fal import toolkit  # which nothing has imported yet
    import fal.app.server
    import fal.app.targets

    home = os.environ["FAL_APP_DIR"]
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("fal", "fal_grpc")}
    seen = {}
    for name, module in sorted(ours.items()):
        spec = module.__spec__
        seen[name] = [
            module.__file__.replace(home, "app"),
            spec.origin.replace(home, "app"),
            spec.loader.archive.replace(home, "app"),
            spec.loader.get_filename(name).replace(home, "app"),
            [path.replace(home, "app") for path in getattr(module, "__path__", ())],
        ]
    return {
        "ahead": AHEAD,
        "modules": seen,
        "files": sorted(os.listdir(home)),
        "path": [path.replace(home, "app") for path in sys.path if "/runners/" not in path],
        "marker": getattr(fal, "MARKER", None),
    }
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looking.py").write_text(APP)
    code = prepare("looking.py").function
    assert code is not None
    return code.bundle


async def run(warm: Any, bundle: bytes, **variables: str) -> Any:
    launch = warm.launch(None, entrypoint="unused:unused", variables=variables)
    code = Payload(method=METHOD, blob=warm.rig.content.add(bundle))
    runner = await warm.rig.start_launch(replace(launch, entrypoint=None, function=code))
    result = await warm.rig.engine.result(runner)
    await warm.rig.until(runner, Event.GONE)
    assert not result.raised, result.traceback
    return {**pickle.loads(result.definition), "process": await warm.process_of(runner)}


def another_version(bundle: bytes) -> bytes:
    """Return the bundle of another version of the client."""
    made, inner = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(made, "w") as new:
        with zipfile.ZipFile(io.BytesIO(old.read("runtime.zip"))) as ours, zipfile.ZipFile(inner, "w") as theirs:
            for name in ours.namelist():
                if name != "fal/__init__.pyc":
                    theirs.writestr(name, ours.read(name))
            theirs.writestr(
                "fal/__init__.py", Path(sys.modules["fal"].__file__ or "").read_text() + "\nMARKER = 'another'\n"
            )
        for name in old.namelist():
            new.writestr(name, inner.getvalue() if name == "runtime.zip" else old.read(name))
    return made.getvalue()


async def test_what_serves_apps_is_imported_ahead_and_lies_where_it_would(warm: Any, bundle: bytes) -> None:
    cold = await run(warm, bundle)
    waiting = await warm.worker()
    ahead = await run(warm, bundle)
    assert (cold.pop("ahead"), ahead.pop("ahead")) == (False, True)
    assert ahead.pop("process") == waiting != cold.pop("process")
    assert set(cold["modules"]) <= set(ahead["modules"])
    ahead["modules"] = {name: ahead["modules"][name] for name in cold["modules"]}
    assert ahead == cold
    assert "app/.fal-runtime.zip/fal/toolkit/__init__.pyc" in ahead["modules"]["fal.toolkit"]


def expected(warm: Any, bundle: bytes, **changes: Any) -> ExpectedStart:
    """Return what is known of the next runner of a deployed app."""
    launch = warm.launch(None, entrypoint="unused:unused")
    found = ExpectedStart(
        account=launch.account,
        packages=launch.packages,
        function=Payload(method=METHOD, blob=warm.rig.content.add(bundle)),
        machine_types=("XS",),
        num_gpus=None,
        variables=launch.variables,
    )
    return replace(found, **changes)


async def test_the_first_runner_of_a_deployed_app_gets_a_worker_that_serves_apps(warm: Any, bundle: bytes) -> None:
    await warm.rig.host.expect(expected(warm, bundle))
    waiting = await warm.worker()
    first = await run(warm, bundle)
    assert (first["process"], first["ahead"]) == (waiting, True)


async def test_a_worker_that_could_not_start_is_tried_again_after_the_next_start(warm: Any, bundle: bytes) -> None:
    attempts, broken = warm.rig.root / "home" / "attempts", warm.environment.packages / "broken.pth"
    broken.write_text("import os; open(os.environ['HOME'] + '/attempts', 'a').write('x'); os._exit(1)\n")
    await warm.rig.host.expect(expected(warm, bundle))
    await asyncio.to_thread(until, lambda: attempts.exists() and attempts.stat().st_size == 5, "the last attempt")
    broken.unlink()
    await run(warm, bundle)
    waiting = await warm.worker()
    found = await run(warm, bundle)
    assert (found["process"], found["ahead"]) == (waiting, True)


async def test_no_worker_waits_for_a_runner_that_could_not_take_it(warm: Any, bundle: bytes) -> None:
    start = expected(warm, bundle)
    for changes in (
        {"packages": replace(start.packages, kind=CONTAINER)},
        {"packages": replace(start.packages, configuration={"python": "not built"})},
        {"function": Payload(method=METHOD, blob="0" * 64)},
        {"machine_types": ("GPU-H100",), "num_gpus": 1},
    ):
        await warm.rig.host.expect(replace(start, **changes))
    assert list((warm.rig.root / "imports").iterdir()) == []
    await warm.rig.host.expect(start)
    await warm.worker()
    assert len(warm.rig.host.warm_pool.workers) == 1


async def test_an_app_of_another_version_of_the_client_gets_its_own(warm: Any, bundle: bytes) -> None:
    processes = [(await run(warm, bundle))["process"]]
    for given, marker in ((another_version(bundle), "another"), (bundle, None)):
        waiting = await warm.worker(*processes)
        found = await run(warm, given)
        assert (found["process"], found["marker"], found["ahead"]) == (waiting, marker, False)
        processes.append(waiting)


async def test_a_pickle_finds_nothing_of_it(warm: Any, bundle: bytes) -> None:
    first = (await run(warm, bundle))["process"]
    waiting = await warm.worker(first)

    def look() -> Any:
        import sys
        from pathlib import Path

        return [name for name in sys.modules if name.startswith("fal")], list(Path().iterdir())

    assert (await warm.run(look), warm.used) == (([], []), waiting)


async def test_without_the_archive_an_app_brings_its_own(warm: Any, bundle: bytes) -> None:
    processes = [(await run(warm, bundle))["process"]]
    processes.append(await warm.worker(*processes))
    (kept,) = (warm.rig.root / "imports").glob("*/*.runtime.zip")
    kept.unlink()
    kept.mkdir()  # so that it cannot be kept again, too
    assert (await run(warm, bundle))["process"] == processes[-1]
    processes.append(await warm.worker(*processes))
    found = await run(warm, bundle)
    assert (found["process"], found["ahead"]) == (processes[-1], False)


def test_modules_that_would_fill_the_memory_are_not_kept(tmp_path: Path) -> None:
    bundle, imports = tmp_path / "bundle", tmp_path / "modules.json"
    for size, kept in ((1 << 20, True), (32 << 20, False)):
        with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(RUNTIME_NAME, "w") as file:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
        (tmp_path / f"modules.json{RUNTIME_SUFFIX}").unlink(missing_ok=True)
        keep_runtime(bundle, imports)
        assert (tmp_path / f"modules.json{RUNTIME_SUFFIX}").exists() is kept
