"""Prewarming: imports that could differ from a cold start wait. They wait for the job, or the job starts cold."""

from __future__ import annotations

import asyncio
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from fal_server.core.lifecycle import Event
from tests.engines.conftest import program_of
from tests.support.gate import address_of, ask


def children(pid: int) -> bytes:
    program = program_of(pid)
    return Path(f"/proc/{program}/task/{program}/children").read_bytes()


async def run_and_say(warm: Any, function: Any, **options: Any) -> tuple[Any, str]:
    """Return its value, and the platform's log lines about its start."""
    runner = await warm.rig.start_launch(warm.launch(function, **options))
    result = await warm.rig.engine.result(runner)
    await warm.rig.until(runner, Event.GONE)
    return pickle.loads(result.definition), "\n".join(warm.said(runner.runner_id))


async def test_a_variable_that_an_import_looks_at_makes_it_a_plain_start(warm: Any) -> None:
    warm.environment.add("early", "here = True\n")
    warm.environment.add("reader", "import os\nmode = os.environ.get('READER_MODE', 'none')\n")

    def app() -> Any:
        import sys

        ahead = {"early", "reader"} & set(sys.modules)
        import early  # noqa: F401
        import reader

        return reader.mode, ahead

    assert await warm.run(app) == ("none", set())
    first = await warm.worker()
    assert await warm.run(app) == ("none", {"early", "reader"}), "nobody sets it"
    second = await warm.worker(first)
    (mode, ahead), said = await run_and_say(warm, app, variables={"READER_MODE": "fast"})
    assert (mode, ahead) == ("fast", set())
    assert "reader looks at READER_MODE when it is imported" in said
    assert f"process {second}" in said, "the same process has started over"
    await warm.worker(first, second)
    (mode, ahead), said = await run_and_say(warm, app, variables={"READER_MODE": "slow"})
    assert (mode, ahead) == ("slow", {"early"}), "from now on what comes before it is imported ahead, and no more"
    assert "started cold" not in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("variable", "PYTHONHASHSEED is the app's own"),
        ("file", "the app has a library of its own"),
        ("package", "the environment was changed"),
    ],
)
async def test_what_differs_makes_it_a_plain_start(warm: Any, change: str, why: str) -> None:
    warm.environment.add("library", "who = 'the environment'\n")

    def app() -> Any:
        import os

        import library

        return library.who, hash("word"), os.environ.get("PYTHONHASHSEED")

    await warm.run(app)
    await warm.worker()
    options: dict[str, Any] = {"variable": {"variables": {"PYTHONHASHSEED": "1"}}, "file": {}, "package": {}}[change]
    if change == "file":
        options = {"files": {"library.py": b"who = 'the app'\n"}}
    if change == "package":
        warm.environment.add("library", "who = 'installed later'\n")
        (warm.environment.packages / "library-2.dist-info").mkdir()
        shutil.rmtree(warm.environment.packages / "__pycache__", ignore_errors=True)
    (who, _, seed), said = await run_and_say(warm, app, **options)
    assert why in said
    assert who == {"variable": "the environment", "file": "the app", "package": "installed later"}[change]
    assert seed == ("1" if change == "variable" else None)


async def test_an_import_that_starts_a_process_waits_for_the_job(warm: Any) -> None:
    code = "import os, subprocess\nprocess = subprocess.Popen(['sleep', '600'])\n"
    warm.environment.add("early", "here = True\n")
    warm.environment.add("starter", code)

    def app() -> Any:
        import sys

        ahead = {"early", "starter"} & set(sys.modules)
        import early  # noqa: F401
        import starter

        return ahead, starter.process.poll() is None

    assert await warm.run(app) == (set(), True)
    worker = await warm.worker()
    assert children(worker) == b""
    assert await warm.run(app) == ({"early"}, True)


async def test_what_an_import_sets_stays_and_a_broken_one_is_no_obstacle(warm: Any) -> None:
    warm.environment.add("setter", "import os\nos.environ['MADE_BY'] = 'setter'\n")
    warm.environment.add("flaky", "import sys\nassert sys.argv == ['shop']\n")

    def app() -> Any:
        import os
        import sys

        ahead = "setter" in sys.modules
        import flaky
        import setter

        return ahead, os.environ["MADE_BY"], flaky.__name__ + setter.__name__

    assert await warm.run(app) == (False, "setter", "flakysetter")
    await warm.worker()
    assert await warm.run(app) == (True, "setter", "flakysetter")


async def test_streams_that_an_import_kept_know_the_request(warm: Any) -> None:
    warm.environment.add("keeper", "import sys\nkept = sys.stdout\n")

    def serve(exposed_port: int) -> None:
        import keeper
        import uvicorn

        async def api(scope: Any, receive: Any, send: Any) -> None:
            print("kept by an import", file=keeper.kept)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

        uvicorn.run(api, host="0.0.0.0", port=exposed_port, log_level="error", lifespan="off")

    waiting = 0
    for _ in range(2):
        runner = await warm.rig.start_launch(warm.launch(serve, http=True))
        ready = await warm.rig.until(runner, Event.READY)
        headers = {"x-fal-request-id": "request-1"}
        assert await asyncio.to_thread(ask, address_of(runner, ready), "GET", "/", headers) == b"hello"
        entry = await warm.rig.lines.until(runner.runner_id, "kept by an import")
        assert entry.request_id == "request-1"
        assert waiting == 0 or program_of(waiting) in warm.rig.alive(runner)
        await warm.rig.engine.kill(runner)
        await warm.rig.until(runner, Event.GONE)
        assert warm.rig.alive(runner) == []
        waiting = await warm.worker(waiting)


async def test_whatever_imports_do_to_the_process_is_no_obstacle(warm: Any) -> None:
    warm.environment.add(
        "wild",
        """
import os, sys, threading
class Odd:
    def __getattr__(self, name):
        raise RuntimeError(name)
sys.modules["odd"] = Odd()
os.environ.pop("FAL_RUNNER_MARK")
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("imported")
""",
    )

    def app() -> Any:
        import sys

        ahead = "wild" in sys.modules
        import wild

        return ahead, wild.__name__

    assert await warm.run(app) == (False, "wild")
    waiting = await warm.worker()
    result, said = await run_and_say(warm, app)
    assert (result, f"process {waiting}" in said) == ((False, "wild"), True)
    assert "started cold" in said


async def test_a_thread_that_an_import_has_started_is_there(warm: Any) -> None:
    warm.environment.add(
        "threads",
        "import threading\nasked = threading.Event()\nanswered = threading.Event()\n"
        "threading.Thread(target=lambda: asked.wait() and answered.set(), daemon=True).start()\n",
    )

    def app() -> Any:
        import sys

        ahead = "threads" in sys.modules
        import threads

        threads.asked.set()
        return ahead, threads.answered.wait(30)

    assert await warm.run(app) == (False, True)
    await warm.worker()
    assert await warm.run(app) == (True, True)
