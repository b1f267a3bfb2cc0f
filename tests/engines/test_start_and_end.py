"""A runner's life on this machine: start, readiness, answers, and every end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal_runner.process.proc import process_info
from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.core.lifecycle import Event
from fal_server.core.logs import LogLevel
from tests.support.gate import address_of, ask, metrics_address_of


def serve(exposed_port: int, greeting: bytes = b"hello") -> None:
    import http.server

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(greeting)

        def log_message(self, *arguments: Any) -> None:
            return

    http.server.HTTPServer(("0.0.0.0", exposed_port), Hello).serve_forever()


def wait_for_ever() -> None:
    import threading

    print("waiting", flush=True)
    threading.Event().wait()


def get(port: int, host: str = "127.0.0.1") -> bytes:
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=30) as answer:
        return answer.read()


def listening_addresses() -> list[str]:
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A"]


async def test_an_app_starts_answers_and_stops(rig: Any) -> None:
    runner = await rig.start(serve, http=True)
    launched = await rig.until(runner, Event.LAUNCHED)
    ready = await rig.until(runner, Event.READY)
    assert launched.handle == runner.handle
    assert await asyncio.to_thread(get, ready.port) == b"hello"
    await rig.engine.stop(runner, 5)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 128 + signal.SIGTERM
    assert rig.alive(runner) == []
    assert [seen.event for seen in rig.seen[runner.runner_id]] == [
        Event.LAUNCHED,
        Event.READY,
        Event.STOPPING,
        Event.GONE,
    ]
    await rig.engine.release(runner.runner_id)
    assert not (rig.root / "runners" / runner.runner_id).exists()
    assert process_info(rig.shim(runner).pid) is None


async def test_a_machine_without_descriptors_deletes_the_files_later(rig: Any, monkeypatch: Any) -> None:
    runner = await rig.start(serve, http=True)
    await rig.until(runner, Event.READY)
    await rig.engine.stop(runner, 5)
    await rig.until(runner, Event.GONE)
    directory = rig.root / "runners" / runner.runner_id
    opened, failures = os.open, [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EMFILE, "the same")]

    def short(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECTORY and Path(os.fsdecode(path)).name == runner.runner_id and failures:
            raise failures.pop()
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", short)
    await rig.engine.release(runner.runner_id)
    assert not failures
    assert not directory.exists()


async def test_an_app_listens_on_loopback_alone(rig: Any) -> None:
    runner = await rig.start(serve, http=True)
    ready = await rig.until(runner, Event.READY)
    listening = listening_addresses()
    assert f"0100007F:{ready.port:04X}" in listening
    assert f"00000000:{ready.port:04X}" not in listening


async def test_an_asyncio_server_gets_its_ports_and_loopback(rig: Any) -> None:
    async def app(exposed_port: int, exposed_metrics_port: int) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nfrom asyncio")
            writer.close()

        for host, port in (("0.0.0.0", exposed_metrics_port), (None, exposed_port)):
            await asyncio.start_server(answer, host, port)
        await asyncio.Event().wait()

    runner = await rig.start(app, http=True, metrics=True)
    ready = await rig.until(runner, Event.READY)
    assert ready.port != ready.metrics_port
    assert ready.gated
    assert await asyncio.to_thread(ask, address_of(runner, ready), "GET", "/") == b"from asyncio"
    assert await asyncio.to_thread(ask, metrics_address_of(runner, ready), "GET", "/") == b"from asyncio"


async def test_uvloop_gets_them_too(rig: Any) -> None:
    def app(exposed_port: int) -> None:
        import uvloop

        async def main() -> None:
            loop = asyncio.get_running_loop()
            await loop.create_server(asyncio.Protocol, "0.0.0.0", exposed_port)
            print(type(loop).__module__, flush=True)
            await asyncio.Event().wait()

        uvloop.run(main())

    runner = await rig.start(app, http=True)
    ready = await rig.until(runner, Event.READY)
    await rig.lines.until(runner.runner_id, "uvloop")
    assert f"00000000:{ready.port:04X}" not in listening_addresses()


async def test_a_port_that_the_code_names_becomes_the_runners_own(rig: Any) -> None:
    def app() -> None:
        import http.server

        http.server.HTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()

    first = await rig.start(app, http=True, app_port=8080)
    second = await rig.start(app, http=True, app_port=8080)
    ports = {(await rig.until(runner, Event.READY)).port for runner in (first, second)}
    assert len(ports) == 2
    assert 8080 not in ports


async def test_the_metrics_port_that_older_clients_do_not_name_is_each_runners_own(rig: Any) -> None:
    def app() -> None:
        import http.server
        import socket

        kept = socket.create_server(("", 9090))
        print("metrics on", kept.getsockname()[1] != 9090, flush=True)
        http.server.HTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()

    for runner in [await rig.start(app, http=True, app_port=8080) for _ in range(2)]:
        await rig.until(runner, Event.READY)
        await rig.lines.until(runner.runner_id, "metrics on True")


async def test_files_are_there_and_importable(rig: Any) -> None:
    files = {"data/words.txt": b"some words", "greeting.py": b"TEXT = 'from a module'\ndef main(): print(TEXT)"}

    def app() -> None:
        from pathlib import Path

        from greeting import TEXT

        print(TEXT, Path("data/words.txt").read_text())

    runner = await rig.start(app, files=files)
    await rig.until(runner, Event.GONE)
    assert rig.lines.app_lines(runner.runner_id) == ["from a module some words"]
    entry = await rig.start(None, entrypoint="greeting:main", files=files)
    await rig.until(entry, Event.GONE)
    assert rig.lines.app_lines(entry.runner_id) == ["from a module"]


async def test_the_runners_own_package_is_not_on_the_apps_path(rig: Any) -> None:
    def app() -> list[str]:
        import json
        import sys

        print(json.dumps([path for path in sys.path if "fal_runner" in path]), sys.argv)
        return []

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    assert rig.lines.app_lines(runner.runner_id) == ["[] ['shop']"]


async def test_the_environment_is_the_apps_alone(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLLERS_OWN", "secret of the controller")

    def app() -> None:
        import json
        import os

        print(json.dumps(dict(os.environ)))

    runner = await rig.start(app, variables={"GIVEN": "yes"})
    await rig.until(runner, Event.GONE)
    (line,) = rig.lines.app_lines(runner.runner_id)
    assert "CONTROLLERS_OWN" not in line
    assert '"GIVEN": "yes"' in line
    assert '"IS_ISOLATE_AGENT": "1"' in line
    assert f'"FAL_RUNNER_ID": "{runner.runner_id}"' in line
    assert f'"PATH": "{Path(sys.executable).parent}:' in line
    assert runner.token not in line


async def test_a_crash_tells_its_traceback_and_code(rig: Any) -> None:
    def app() -> None:
        raise ValueError("no such luck at hidden-place\nmore")

    runner = await rig.start(app, redact=("hidden-place",))
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 1
    assert gone.reason == "worker exited with code 1: ValueError: no such luck at ******"
    lines = rig.lines.of(runner.runner_id)
    messages = [entry.message for entry in lines]
    traceback = next(entry for entry in lines if entry.message.startswith("Traceback"))
    assert traceback.level is LogLevel.ERROR
    assert traceback.message.endswith("\nValueError: no such luck at ******\nmore")
    assert not any("worker.py" in message for message in messages)
    assert messages[-1] == gone.reason


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("no weights at hidden-place", "worker exited with code 1: no weights at ******"),
        (3, "worker exited with code 3"),
    ],
)
async def test_an_exit_tells_its_message_and_code(rig: Any, told: object, reason: str) -> None:
    def app() -> None:
        sys.exit(told)  # type: ignore[arg-type]

    gone = await rig.until(await rig.start(app, redact=("hidden-place",)), Event.GONE)
    assert gone.reason == reason


async def test_a_crash_shows_the_apps_frames_alone_and_records_keep_their_level(rig: Any) -> None:
    async def app() -> None:
        import logging

        logging.getLogger("mine").warning("no cache")
        raise ValueError("no weights")

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    lines = rig.lines.of(runner.runner_id)
    assert [entry.level for entry in lines if entry.message == "no cache"] == [LogLevel.WARNING]
    traceback = next(entry.message for entry in lines if entry.message.startswith("Traceback"))
    head, frame, *rest = traceback.split("\n")
    assert head == "Traceback (most recent call last):"
    assert frame.endswith(", in app")
    assert rest == ['    raise ValueError("no weights")', "ValueError: no weights"]


async def test_sigterm_is_the_apps_to_handle(rig: Any) -> None:
    def app() -> None:
        import signal
        import sys
        import threading

        def end(*_: object) -> None:
            print("tidied up", flush=True)
            sys.exit(7)

        signal.signal(signal.SIGTERM, end)
        print("waiting", flush=True)
        threading.Event().wait()

    runner = await rig.start(app)
    await rig.lines.until(runner.runner_id, "waiting")
    await rig.engine.stop(runner, 30)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 7
    assert rig.lines.app_lines(runner.runner_id) == ["waiting", "tidied up"]


async def test_grace_ends_one_that_ignores_sigterm(rig: Any) -> None:
    def app() -> None:
        import signal
        import threading

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("waiting", flush=True)
        while True:
            threading.Event().wait()

    runner = await rig.start(app)
    await rig.lines.until(runner.runner_id, "waiting")
    await rig.engine.stop(runner, 60)
    await rig.engine.stop(runner, 0.1)  # a repeated stop shortens the grace
    await rig.engine.stop(runner, 60)  # but does not extend it
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 128 + signal.SIGKILL
    await rig.lines.until(runner.runner_id, "still running")


def with_daemons(wiped: bool) -> None:
    """Start a child, and by a double fork a daemon. The daemon has its own session, with or without the tag."""
    import os
    import subprocess
    import sys
    import threading

    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "3600"], {} if wiped else dict(os.environ))
        os._exit(0)
    os.wait()
    print("daemons started", flush=True)
    threading.Event().wait()


async def test_kill_leaves_nothing_alive(rig: Any) -> None:
    runner = await rig.start(lambda: with_daemons(wiped=True))
    await rig.lines.until(runner.runner_id, "daemons started")
    before = rig.programs(runner)
    assert len(before) == 3
    await rig.engine.kill(runner)
    await rig.engine.kill(runner)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 128 + signal.SIGKILL
    assert [pid for pid in before if (seen := process_info(pid)) is not None and seen.alive] == []


async def test_sigkill_of_the_worker_takes_its_children_along(rig: Any) -> None:
    runner = await rig.start(lambda: with_daemons(wiped=True))
    await rig.lines.until(runner.runner_id, "daemons started")
    before = rig.programs(runner)
    started = await rig.lines.until(runner.runner_id, "worker started: process ")
    os.kill(int(started.message.rpartition(" ")[2]), signal.SIGKILL)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 128 + signal.SIGKILL
    assert "not sent by the platform" in gone.reason
    assert [pid for pid in before if (seen := process_info(pid)) is not None and seen.alive] == []


async def test_sigkill_of_the_shim_takes_everything_along(rig: Any) -> None:
    runner = await rig.start(lambda: with_daemons(wiped=False))
    await rig.lines.until(runner.runner_id, "daemons started")
    before = rig.alive(runner)
    os.kill(rig.shim(runner).pid, signal.SIGKILL)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code is None
    assert "shim" in gone.reason
    marked = [pid for pid in before if (seen := process_info(pid)) is not None and seen.alive]
    assert marked == []


async def test_a_start_that_cannot_be_leaves_nothing(rig: Any) -> None:
    launch = rig.launch(wait_for_ever, python=Path("/nowhere/bin/python"))
    with pytest.raises(Unavailable, match="no interpreter at /nowhere/bin/python"):
        await rig.engine.start(launch)
    assert list((rig.root / "runners").iterdir()) == []


@pytest.mark.parametrize("name", ["A=B", "NUL\0", "\udcff"])
async def test_a_variable_that_is_none_leaves_nothing(rig: Any, name: str) -> None:
    launch = rig.launch(wait_for_ever, variables={name: "the-secret-value"})
    with pytest.raises(Unavailable) as raised:
        await rig.engine.start(launch)
    assert launch.runner_id in raised.value.message
    assert "the-secret-value" not in raised.value.message
    assert list((rig.root / "runners").iterdir()) == []


async def test_a_file_cannot_be_laid_out_elsewhere(rig: Any) -> None:
    with pytest.raises(InvalidArgument, match="below the app's directory"):
        rig.launch(wait_for_ever, files={"../../outside.txt": b""})


async def test_a_second_start_with_the_same_token_is_the_first(rig: Any) -> None:
    launch = rig.launch(wait_for_ever)
    rig.launches[launch.runner_id] = launch
    first = await rig.engine.start(launch)
    assert await rig.engine.start(launch) == first


async def test_a_kill_of_a_runner_that_is_not_there_is_its_end(rig: Any) -> None:
    runner = await rig.start(wait_for_ever)
    other = replace(runner, runner_id="gone-long-ago", token="another", handle="")
    await rig.engine.kill(other)
    assert (await rig.until(other, Event.GONE)).exit_code is None
    assert rig.alive(runner) != []
    assert not await rig.engine.adopt(other)


async def test_a_deep_state_directory_is_no_obstacle(tmp_path: Path, rig: Any) -> None:
    rig.root = tmp_path / ("deep" * 20) / ("er" * 40)
    rig.root.mkdir(parents=True)
    await rig.restart()
    runner = await rig.start(serve, http=True)
    await rig.until(runner, Event.READY)
    assert await rig.restart(adopt=runner)
    assert await asyncio.to_thread(get, (await rig.until(runner, Event.READY)).port) == b"hello"


async def test_a_runner_that_has_ended_is_released_with_the_engine(rig: Any) -> None:
    runner = await rig.start(lambda: None)
    await rig.until(runner, Event.GONE)
    await rig.restart()
    assert list((rig.root / "runners").iterdir()) == []
    assert process_info(rig.shim(runner).pid) is None


async def test_strangers_are_ended_at_the_controllers_start(rig: Any) -> None:
    kept, stranger = await rig.start(wait_for_ever), await rig.start(wait_for_ever)
    await rig.lines.until(kept.runner_id, "waiting")
    await rig.lines.until(stranger.runner_id, "waiting")
    assert await rig.restart(adopt=kept)
    await rig.engine.release_strangers([kept.runner_id])
    assert rig.alive(stranger) == []
    assert rig.alive(kept) != []
    assert [path.name for path in (rig.root / "runners").iterdir()] == [kept.runner_id]


async def test_sigterm_to_a_shim_is_a_polite_stop(rig: Any) -> None:
    runner = await rig.start(wait_for_ever)
    await rig.lines.until(runner.runner_id, "waiting")
    os.kill(rig.shim(runner).pid, signal.SIGTERM)
    assert (await rig.until(runner, Event.GONE)).exit_code == 128 + signal.SIGTERM


async def test_what_an_app_nests_too_deep_for_a_path_goes_with_it(rig: Any) -> None:
    def nest() -> None:
        import os
        from pathlib import Path

        for _ in range(1200):
            Path("d" * 50).mkdir()
            os.chdir("d" * 50)

    runner = await rig.start(nest)
    gone = await rig.until(runner, Event.GONE)
    assert gone.exit_code == 0
    await rig.engine.release(runner.runner_id)
    assert not (rig.root / "runners" / runner.runner_id).exists()
