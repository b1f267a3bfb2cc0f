"""Every line of a runner reaches the sink once, in order. It does so whatever happens to controller and shim."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fal_server.core.faults import Unavailable
from fal_server.core.lifecycle import Event
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.runner_door import UnixDoor
from tests.support.gate import address_of, ask


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def assert_no_gap(rig: Any, runner: Any) -> None:
    sequences = [entry.sequence for entry in rig.lines.of(runner.runner_id)]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_lines_have_source_level_and_number(rig: Any) -> None:
    def app() -> None:
        import sys

        print("plain")
        print("ERROR: worse")
        print('{"level": "warning", "event": "structured"}')
        print("two\nlines")
        sys.stderr.write("on the other stream\n")
        sys.stderr.flush()
        sys.stdout.write("no newline at the end")

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    lines = rig.lines.of(runner.runner_id)
    assert_no_gap(rig, runner)
    stdout = [(entry.message, entry.level) for entry in lines if entry.source is LogSource.STDOUT]
    assert stdout == [
        ("plain", LogLevel.INFO),
        ("ERROR: worse", LogLevel.ERROR),
        ('{"level": "warning", "event": "structured"}', LogLevel.WARNING),
        ("two", LogLevel.INFO),
        ("lines", LogLevel.INFO),
        ("no newline at the end", LogLevel.INFO),
    ]
    stderr = [entry for entry in lines if entry.source is LogSource.STDERR]
    assert [entry.message for entry in stderr] == ["on the other stream"]
    assert {entry.app_name for entry in lines} == {"shop"}
    assert {entry.revision_id for entry in lines} == {"revision-1"}
    assert all(entry.timestamp.tzinfo is not None for entry in lines)
    assert lines[-1].source is LogSource.SYSTEM


async def test_nothing_that_is_printed_can_hurt(rig: Any) -> None:
    def app() -> None:
        import sys

        sys.stdout.buffer.write(b"x" * 10_000_000 + b"\n")
        sys.stdout.buffer.write(b"\xff\xfe not utf-8 \x00\x1b[31m\n")
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.write("last: ü\n".encode())

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    long, binary, empty, last = rig.lines.app_lines(runner.runner_id)
    assert long == "x" * 1024 * 1024 + f" [... {10_000_000 - 1024 * 1024} bytes cut]"
    assert binary == "\ufffd\ufffd not utf-8 \x00\x1b[31m"
    assert empty == ""
    assert last == "last: ü"


async def test_a_burst_before_a_crash_is_whole(rig: Any) -> None:
    def app() -> None:
        import os
        import signal

        print("\n".join(f"line {number}" for number in range(50_000)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    assert rig.lines.app_lines(runner.runner_id) == [f"line {number}" for number in range(50_000)]
    assert_no_gap(rig, runner)
    last = rig.lines.of(runner.runner_id)[-1]
    assert last.source is LogSource.SYSTEM
    assert "killed by signal 9 (SIGKILL)" in last.message
    assert last.level is LogLevel.ERROR


async def test_a_traceback_is_whole_and_the_last_thing_that_the_app_says(rig: Any) -> None:
    def app() -> None:
        def deeper(depth: int) -> None:
            if depth:
                deeper(depth - 1)
            raise ValueError("at the bottom\nof it")

        print("working on it... ", end="")
        deeper(20)

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    lines = rig.lines.app_lines(runner.runner_id)
    assert "working on it... " in lines
    (traceback,) = [line for line in lines if line != "working on it... "]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("\nValueError: at the bottom\nof it")


async def test_a_record_and_a_traceback_are_one_entry_with_their_level(rig: Any) -> None:
    def app() -> None:
        import logging
        import sys
        import threading
        import traceback

        def fail() -> None:
            raise ValueError("no\nmore")

        log = logging.getLogger("shop")
        log.warning("by the last resort")
        logging.basicConfig(level=logging.DEBUG, format="%(name)s - %(levelname)s - %(message)s", stream=sys.stdout)
        log.debug("small")
        log.info("two\nlines")
        log.critical("x" * 10_000)
        try:
            fail()
        except ValueError:
            log.exception("it failed")
            traceback.print_exc()
            traceback.print_exc(file=sys.stdout)
        thread = threading.Thread(target=fail, name="own-thread")
        thread.start()
        thread.join()
        print("INFO:     as uvicorn says it")

    runner = await rig.start(app)
    await rig.until(runner, Event.GONE)
    assert_no_gap(rig, runner)
    lines = rig.lines.of(runner.runner_id)

    def of(source: LogSource) -> list[tuple[LogLevel, str, str]]:
        parts = [(entry.level, entry.message.partition("\n")) for entry in lines if entry.source is source]
        return [
            (level, first, rest.rpartition("\n  ")[2].partition("\n")[2] or rest) for level, (first, _, rest) in parts
        ]

    head, end = "Traceback (most recent call last):", "ValueError: no\nmore"
    assert of(LogSource.STDOUT) == [
        (LogLevel.DEBUG, "shop - DEBUG - small", ""),
        (LogLevel.INFO, "shop - INFO - two", "lines"),
        (LogLevel.ERROR, "shop - CRITICAL - " + "x" * 10_000, ""),
        (LogLevel.ERROR, "shop - ERROR - it failed", end),
        (LogLevel.ERROR, head, end),
        (LogLevel.INFO, "as uvicorn says it", ""),
    ]
    assert of(LogSource.STDERR) == [
        (LogLevel.WARNING, "by the last resort", ""),
        (LogLevel.ERROR, head, end),
        (LogLevel.ERROR, "Exception in thread own-thread:", end),
    ]


async def test_a_progress_bar_is_seen_before_its_line_ends(rig: Any) -> None:
    def app() -> None:
        import sys
        import threading

        for step in range(3):
            sys.stderr.write(f"\r{step * 10}%|####")
        sys.stderr.flush()
        threading.Event().wait()

    runner = await rig.start(app)
    await rig.lines.until(runner.runner_id, "10%|####")
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    assert rig.lines.app_lines(runner.runner_id) == ["0%|####", "10%|####", "20%|####"]


def serve_two_ways(exposed_port: int) -> None:
    import asyncio
    import logging
    import os
    import subprocess
    import sys
    import threading

    import uvicorn
    from fastapi import FastAPI

    logging.basicConfig(level="INFO", format="%(levelname)s: %(message)s")
    api = FastAPI()
    batched = threading.Barrier(3)

    @api.post("/thread")
    def thread() -> None:
        print("thread a", end=" ")
        batched.wait()
        logging.getLogger("own").warning("logged")
        print("b\nc", flush=True)

    @api.post("/task")
    async def task() -> None:
        sys.stdout.write("task a")
        await asyncio.to_thread(batched.wait)
        print(" b")
        child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", "print('of a child')"], check=True)
        os.write(1, b"raw %d\n" % child.returncode)
        sys.stdout.buffer.write(b"no newline")

    uvicorn.run(api, port=exposed_port, log_level="warning")


async def test_what_a_request_prints_has_its_id(rig: Any) -> None:
    runner = await rig.start(serve_two_ways, http=True)
    address = address_of(runner, await rig.until(runner, Event.READY))
    calls = [
        asyncio.to_thread(ask, address, "POST", f"/{kind}", {"x-fal-request-id": name})
        for kind, name in (("thread", "one"), ("thread", "two"), ("task", "three"))
    ]
    await asyncio.gather(*calls)
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    assert_no_gap(rig, runner)
    found: dict[str | None, list[str]] = {}
    for entry in rig.lines.of(runner.runner_id):
        if entry.source is not LogSource.SYSTEM:
            found.setdefault(entry.request_id, []).append(entry.message)
    for name in ("one", "two"):
        assert sorted(found[name]) == ["WARNING: logged", "c", "thread a b"]
    assert found["three"] == ["task a b", "no newline"]
    assert found[None] == ["of a child", "raw 0"]


async def all_acknowledged(rig: Any, runner: Any) -> None:
    """Wait until every line is acknowledged to the shim."""
    client = ShimClient(UnixDoor(Path(rig.shim(runner).address), runner.runner_id), runner.token)
    async with asyncio.timeout(30):
        status = await client.status()
        while status.acked_log_sequence < status.last_log_sequence:
            status = await client.status()
    await client.close()


async def test_what_was_stored_does_not_come_again_when_the_store_has_forgotten_it(rig: Any) -> None:
    """Delete lines as retention does. It does so if a runner was silent for a long time."""

    def app() -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print("old", flush=True)
        signal.sigwait({signal.SIGUSR1})
        print("new", flush=True)
        signal.pause()

    runner = await rig.start(app)
    worker = int((await rig.lines.until(runner.runner_id, "worker started")).message.rpartition(" ")[2])
    await rig.lines.until(runner.runner_id, "old")
    await all_acknowledged(rig, runner)
    await rig.shut()
    rig.lines.entries.clear()
    os.kill(worker, signal.SIGUSR1)
    assert await rig.restart(adopt=runner)
    await rig.lines.until(runner.runner_id, "new")
    assert rig.lines.app_lines(runner.runner_id) == ["new"]


def count_slowly() -> None:
    import threading

    number = 0
    while True:
        print(f"line {number}", flush=True)
        number += 1
        threading.Event().wait(0.0005)


async def test_each_line_comes_once_through_restarts_of_the_controller(rig: Any) -> None:
    runner = await rig.start(count_slowly)
    for wanted in (100, 300, 500):
        await rig.lines.until(runner.runner_id, f"line {wanted}")
        assert await rig.restart(adopt=runner)
    await rig.lines.until(runner.runner_id, "line 700")
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    lines = rig.lines.app_lines(runner.runner_id)
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert_no_gap(rig, runner)


async def test_lines_that_are_printed_while_no_controller_is_there_wait(rig: Any) -> None:
    def app() -> None:
        import signal
        import sys

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print("waiting", flush=True)
        signal.sigwait({signal.SIGUSR1})
        print("\n".join(f"line {number}" for number in range(1000)))
        sys.exit(4)

    runner = await rig.start(app)
    await rig.lines.until(runner.runner_id, "waiting")
    worker = int((await rig.lines.until(runner.runner_id, "worker started")).message.rpartition(" ")[2])
    await rig.shut()
    os.kill(worker, signal.SIGUSR1)
    await rig.worker_ended(worker)
    assert await rig.restart(adopt=runner)
    assert (await rig.until(runner, Event.GONE)).exit_code == 4
    assert len(rig.lines.app_lines(runner.runner_id)) == 1001


async def test_what_a_dead_shim_left_is_stored(rig: Any) -> None:
    runner = await rig.start(count_slowly)
    await rig.lines.until(runner.runner_id, "line 100")
    os.kill(rig.shim(runner).pid, signal.SIGKILL)
    await rig.until(runner, Event.GONE)
    lines = rig.lines.app_lines(runner.runner_id)
    assert lines == [f"line {number}" for number in range(len(lines))]


async def test_what_a_shim_left_that_died_without_a_controller_is_stored(rig: Any) -> None:
    runner = await rig.start(count_slowly)
    await rig.lines.until(runner.runner_id, "line 100")
    before = len(rig.lines.arrivals)
    await rig.engine.close()
    os.kill(rig.shim(runner).pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, rig.shim(runner).pid, 0)
    assert not await rig.restart(adopt=runner)
    assert rig.alive(runner) == []
    lines = rig.lines.app_lines(runner.runner_id)
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert len(rig.lines.arrivals) >= before
    assert not (rig.root / "runners" / runner.runner_id).exists()


async def test_a_sink_that_fails_gets_the_lines_again(rig: Any) -> None:
    failures = iter([OSError("disk full"), OSError("disk full")])
    plain = rig.lines.append

    async def unwilling(entries: Sequence[LogEntry]) -> None:
        for failure in failures:
            raise failure
        await plain(entries)

    rig.lines.append = unwilling
    await rig.restart()
    runner = await rig.start(lambda: print("kept"))
    await rig.until(runner, Event.GONE)
    assert rig.lines.app_lines(runner.runner_id) == ["kept"]


def print_much() -> None:
    print("\n".join(f"line {number}" for number in range(20_000)))


class Disk:
    """A sink that stores nothing until it is free. It then refuses the next batches."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.free = asyncio.Event()
        self.refusals = 2

    async def append(self, entries: Sequence[LogEntry]) -> None:
        await self.free.wait()
        if self.refusals:
            self.refusals -= 1
            raise OSError("disk full")
        await self.plain(entries)


async def test_an_ended_runner_is_kept_until_its_lines_are_stored_whatever_its_shim_does(rig: Any) -> None:
    disk = Disk(rig.lines.append)
    rig.lines.append = disk.append
    await rig.restart(silent_seconds=0.01)
    runner = await rig.start(print_much)
    await rig.until(runner, Event.GONE)
    released = asyncio.create_task(rig.engine.release(runner.runner_id))
    await rig.worker_ended(rig.shim(runner).pid)
    assert not released.done()
    disk.free.set()
    await released
    assert rig.lines.app_lines(runner.runner_id) == [f"line {number}" for number in range(20_000)]
    assert_no_gap(rig, runner)
    assert not (rig.root / "runners" / runner.runner_id).exists()


async def test_lines_that_could_not_be_stored_before_the_controllers_end_are_stored_at_the_next_start(rig: Any) -> None:
    disk = Disk(rig.lines.append)
    rig.lines.append = disk.append
    await rig.restart()
    runner = await rig.start(print_much)
    await rig.until(runner, Event.GONE)
    released = asyncio.create_task(rig.engine.release(runner.runner_id))
    await rig.shut()
    assert isinstance((await asyncio.gather(released, return_exceptions=True))[0], Unavailable)
    rig.lines.append = disk.plain
    assert not await rig.restart(adopt=runner)
    assert len(rig.lines.app_lines(runner.runner_id)) == 20_000
    assert_no_gap(rig, runner)


async def test_secrets_are_nowhere_in_the_open(rig: Any) -> None:
    secret, token_word = "s3cret-value-of-the-app", "another+secret/with=signs"

    def app() -> None:
        import base64
        import os
        import sys
        import threading
        import urllib.parse

        print("value:", os.environ["API_KEY"], base64.b64encode(os.environ["API_KEY"].encode()).decode())
        print("other:", urllib.parse.quote(os.environ["OTHER"], safe=""), file=sys.stderr)
        print("said", flush=True)
        threading.Event().wait()

    variables = {"API_KEY": secret, "OTHER": token_word}
    runner = await rig.start(app, variables=variables, redact=(secret, token_word))
    await rig.lines.until(runner.runner_id, "said")
    await rig.lines.until(runner.runner_id, "other:")
    assert set(rig.lines.app_lines(runner.runner_id)) == {"value: ****** ******", "other: ******", "said"}
    planted = [secret.encode(), token_word.encode(), runner.token.encode()]
    files = [path for path in (rig.root / "runners").rglob("*") if path.is_file()]
    assert any(path.suffix == ".seg" for path in files)
    for path in files:
        assert not any(word in path.read_bytes() for word in planted), path
    for pid in (rig.shim(runner).pid, *rig.alive(runner)):
        assert not any(word in arguments_of(pid) for word in planted)
    for directory in (rig.root / "runners", rig.root / "runners" / runner.runner_id):
        assert directory.stat().st_mode & 0o077 == 0
