"""Runners in containers: the engine's command lines. Their life is like any other runner's."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from pathlib import Path

import cloudpickle
import pytest

from fal_server.core.containers import Container, EngineOptions
from fal_server.core.lifecycle import End, Event
from fal_server.core.machines import RunnerLimits
from tests.support.containers import FakeEngine, make_engine

SECRET = "very-secret-value"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = make_engine(tmp_path / "bin")
    monkeypatch.setenv("CONTAINERS_RECORD", str(fake.record))
    return fake


def contained(fake: FakeEngine, cmd: tuple[str, ...] | None = None) -> dict[str, object]:
    """The options of a launch that runs in a container."""
    return {"python": Path("python3"), "container": Container(engine=fake.path, image="sha256:fake", cmd=cmd)}


async def status_of(port: int) -> int:
    def ask() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            return answer.status

    return await asyncio.to_thread(ask)


async def test_a_function_runs_in_its_container_and_its_value_comes_back(rig, fake):
    def where():
        import os

        return {"secret": os.environ["TOKEN"], "stdin": os.read(0, 10), "home": os.environ.get("VIRTUAL_ENV")}

    launch = rig.launch(where, variables={"TOKEN": SECRET}, **contained(fake))
    runner = await rig.start_launch(launch)
    result = await rig.engine.result(runner)
    assert cloudpickle.loads(result.definition) == {"secret": SECRET, "stdin": b"", "home": None}
    await rig.until(runner, Event.GONE)
    (call,) = fake.calls("run")
    assert call["arguments"][:4] == ["run", "--rm", "--name", f"fal-{launch.runner_id}"]
    assert "TOKEN" in call["arguments"]
    assert SECRET not in str(call["arguments"])
    directory = rig.root / "runners" / launch.runner_id
    assert not [file for file in directory.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    await rig.engine.release(launch.runner_id)
    assert not directory.exists()
    assert fake.calls("rm")[-1]["arguments"] == ["rm", "--force", "--time", "0", f"fal-{launch.runner_id}"]


async def test_an_app_in_a_container_serves_is_entered_and_ends_in_order(rig, fake):
    def serve(exposed_port):
        import http.server
        import signal
        import sys

        signal.signal(signal.SIGTERM, lambda *_: (print("ended in order", flush=True), sys.exit(0)))
        http.server.HTTPServer(("0.0.0.0", exposed_port), http.server.SimpleHTTPRequestHandler).serve_forever()

    launch = rig.launch(serve, http=True, **contained(fake))
    runner = await rig.start_launch(launch)
    ready = await rig.until(runner, Event.READY)
    assert await status_of(ready.port) == 200
    ran = await rig.run(runner, "echo", "inside")
    assert (ran.code, bytes(ran.stdout)) == (0, b"inside\n")
    (entered,) = fake.calls("exec")
    assert entered["arguments"][-3:] == [f"fal-{launch.runner_id}", "echo", "inside"]
    await rig.engine.stop(runner, 10)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 0
    assert "ended in order" in rig.lines.app_lines(launch.runner_id)


async def test_an_image_is_run_as_it_is(rig, fake):
    listen = (
        "import os; from http.server import *; "
        "HTTPServer(('127.0.0.1', int(os.environ['PUBLISHED'])), SimpleHTTPRequestHandler).serve_forever()"
    )
    launch = rig.launch(None, http=True, app_port=8080, **contained(fake, cmd=(sys.executable, "-c", listen)))
    runner = await rig.start_launch(launch)
    ready = await rig.until(runner, Event.READY)
    assert await status_of(ready.port) == 200
    (call,) = fake.calls("run")
    published = call["arguments"][call["arguments"].index("--publish") + 1]
    assert published == f"127.0.0.1:{ready.port}:8080"
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)


async def test_an_engine_that_refuses_ends_the_runner_in_its_words(rig, fake, monkeypatch):
    launch = rig.launch(lambda: 1, **contained(fake))
    fake.path.write_text("#!/bin/sh\necho no space for containers >&2\nexit 125\n")
    runner = await rig.start_launch(launch)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 125
    assert "no space for containers" in rig.lines.app_lines(launch.runner_id)


async def test_an_image_cannot_have_its_job_written_elsewhere(rig, fake, monkeypatch, tmp_path):
    outside = tmp_path / "authorized_keys"
    outside.write_text("the operator's")
    monkeypatch.setenv("CONTAINERS_PLANT", str(outside))
    runner = await rig.start_launch(rig.launch(lambda: None, **contained(fake)))
    await rig.until(runner, Event.GONE)
    assert fake.calls("run"), "the image ran"
    assert outside.read_text() == "the operator's"


async def test_the_socket_to_the_controller_is_mounted_with_its_directory_to_read(rig, fake, tmp_path):
    socket, data = tmp_path / "api" / "api.sock", tmp_path / "data"
    variables = {"FAL_API_SOCKET": str(socket), "FAL_DATA_DIR": str(data)}
    runner = await rig.start_launch(rig.launch(lambda: None, variables=variables, **contained(fake)))
    await rig.until(runner, Event.GONE)
    given = fake.calls("run")[0]["arguments"]
    volumes = [given[place + 1] for place, word in enumerate(given) if word == "--volume"]
    assert volumes[:2] == [f"{data}:/data", f"{socket.parent}:{socket.parent}:ro"]


@pytest.mark.parametrize("limits", [True, False])
async def test_the_engine_bounds_a_runner_or_else_the_shim_bounds_its_memory(rig, fake, limits):
    def eat():
        import threading

        held = bytes(range(256)) * (1 << 20)
        print("took", len(held), flush=True)
        threading.Event().wait()

    small = RunnerLimits(machine_type="TINY", memory_mib=128, processes=40, cpu_weight=50, larger="XS")
    options = contained(fake)
    options["container"] = Container(engine=fake.path, image="sha256:fake", options=EngineOptions(limits=limits))
    runner = await rig.start_launch(rig.launch(eat, limits=small, **options))
    if limits:  # this engine only takes note of it
        await rig.lines.until(runner.runner_id, "took 268435456")
        given = fake.calls("run")[0]["arguments"]
        for name, value in (("--memory", "128m"), ("--cpu-shares", "512"), ("--pids-limit", "40")):
            assert given[given.index(name) + 1] == value
        await rig.engine.kill(runner)
        return
    gone = await rig.until(runner, Event.GONE)
    assert gone.end is End.OUT_OF_MEMORY
    assert "machine type TINY with 128 MiB ran out of memory: deploy it with a larger one, such as XS" in gone.reason
    assert "--memory" not in fake.calls("run")[0]["arguments"]
