"""Commands in real runners: input, output, exit codes and how they end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from fal_grpc.adapter.execs import ExecSpec
from fal_grpc.adapter.runner import RunnerState
from fal_grpc.errors import AbortedError, DeadlineExceededError, NotFoundError
from fal_grpc.exec_session import ExecSession
from tests.support.controller import BIN, ROOT
from tests.support.place import Place, entered
from tests.support.waiting import until

BLOCK = hashlib.sha512(b"a block").digest() * 1024  # 64 KiB
BLOCKS = 800  # 50 MiB, far more than all buffers on the way
WHOLE = hashlib.sha256(BLOCK * BLOCKS).hexdigest()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("exec")) as place:
        yield place


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_streams_exit_codes_and_input(place: Place) -> None:
    done = place.exec("sh", "-c", "cat; echo err >&2; exit 42", stdin=b"\x01in\n")
    assert (done.returncode, done.stdout, done.stderr) == (42, "\x01in\n", "err\n")
    assert place.exec("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert place.exec("no-such-command").returncode == 127


def test_directory_and_variables(place: Place) -> None:
    options = ["--cwd", "/", "--env", "FIRST=1 [x]", "--env", "SECOND=a=b"]
    done = place.exec("sh", "-c", 'pwd; echo "$FIRST|$SECOND|$FAL_APP_NAME"', options=options)
    assert done.stdout == "/\n1 [x]|a=b|entered\n"
    assert place.exec("true", options=["--env", "nonsense"]).returncode == 2


def test_a_time_limit_has_a_code_of_its_own(place: Place) -> None:
    done = place.exec("sh", "-c", "echo started; sleep 1000", options=["--timeout", "0.5"])
    assert (done.returncode, done.stdout) == (124, "started\n")
    assert "had not exited after 0.5 seconds" in done.stderr
    with place.sdk() as sdk, pytest.raises(DeadlineExceededError):
        sdk.runners.exec(place.runner_id, ["sleep", "1000"], timeout=0.2)


def test_ctrl_c_is_the_commands(place: Place) -> None:
    process = place.popen("sh", "-c", "trap 'echo caught; exit 5' INT; echo $$; while :; do sleep 0.05; done")
    first_line(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (5, b"caught\n", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_client_that_is_ended_hangs_its_command_up(place: Place, number: int) -> None:
    process = place.popen("sh", "-c", "echo $$; sleep 1000")
    pid = int(first_line(process))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    until(lambda: not alive(pid), "the command is gone")


@pytest.mark.parametrize("keep", [False, True])
def test_a_client_that_vanishes_hangs_its_command_up_unless_it_is_kept(place: Place, keep: bool) -> None:
    command = ["sh", "-c", "echo $$; sleep 1000"]
    spec = ExecSpec(runner_id=place.runner_id, command=command, keep=keep, linger_seconds=0.2)
    with place.wire() as wire:
        session = wire.start_exec(spec, interactive=True)
        assert isinstance(session, ExecSession)
        pid = int(next(iter(session)).data)
    # Closing the channel, like the death of a machine, does not notify the command.
    if not keep:
        until(lambda: not alive(pid), "the command is hung up")
        return
    with place.wire() as wire:
        until(lambda: not wire.get_exec(session.exec_id).attached, "the loss is noticed")
        assert alive(pid)
        wire.attach_exec(wire.get_exec(session.exec_id)).hang_up()
        until(lambda: wire.get_exec(session.exec_id).exit_code == 128 + signal.SIGHUP, "it is hung up")


def test_a_reader_that_goes_away_ends_it(place: Place) -> None:
    process = place.popen("sh", "-c", "echo $$; exec yes")
    pid = int(first_line(process))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141
    until(lambda: not alive(pid), "the command is gone")


def test_a_slow_reader_slows_the_writer(place: Place) -> None:
    with place.sdk() as sdk, sdk.runners.exec_stream(place.runner_id, ["yes"]) as session:
        next(iter(session))
        sizes: list[int] = []

        def settled() -> bool:
            sizes.append(sdk.runners.execs(place.runner_id)[-1].output_bytes)
            return sizes[-5:] == [sizes[-1]] * 5

        until(settled, "the command waits")
        assert sizes[-1] < 16 * 1024 * 1024


def peak_mib(pid: int) -> int:
    """Return the peak memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def test_any_amount_passes_without_memory(place: Place) -> None:
    identity = place.controller.state_dir / "runners" / place.runner_id / "shim.json"
    others = [place.controller.process.pid, json.loads(identity.read_text())["pid"]]
    before = [peak_mib(pid) for pid in others]
    process = place.popen("dd", "if=/dev/zero", "bs=1M", "count=512", "status=none")
    assert process.stdout is not None
    assert process.stderr is not None
    length, client = 0, 0
    while data := process.stdout.read(2**20):
        length += len(data)
        if length == 480 * 2**20:
            client = peak_mib(process.pid)
    assert (length, process.stderr.read(), process.wait(60)) == (512 * 2**20, b"", 0)
    process.stdout.close()
    process.stderr.close()
    grown = [peak_mib(pid) - was for pid, was in zip(others, before, strict=True)]
    assert max(grown) < 64
    assert 0 < client < 128


@pytest.mark.parametrize("how", ["output", "input"])
def test_nothing_is_lost_when_the_controller_is_killed(place: Place, how: str) -> None:
    script = (
        "import hashlib, sys\n"
        "block = hashlib.sha512(b'a block').digest() * 1024\n"
        f"[sys.stdout.buffer.write(block) for _ in range({BLOCKS})]\n"
        "sys.stdout.flush(); print('done', file=sys.stderr); sys.exit(7)"
    )
    command = ["python", "-c", script] if how == "output" else ["sh", "-c", "cat; echo done >&2; exit 7"]
    process = place.popen(*command, stdin=subprocess.DEVNULL if how == "output" else subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None

    def give() -> None:
        assert process.stdin is not None
        for _ in range(BLOCKS):
            process.stdin.write(BLOCK)
        process.stdin.close()

    feeder = threading.Thread(target=give)
    if how == "input":
        feeder.start()
    found = hashlib.sha256()
    length = 0
    crashes = [5 * 2**20, 25 * 2**20]
    while data := process.stdout.read(2**20):
        found.update(data)
        length += len(data)
        if crashes and length >= crashes[0]:
            crashes.pop(0)
            place.crash()  # without a reader the command cannot end
    words = process.stderr.read().decode()
    assert process.wait(60) == 7, words
    if how == "input":
        feeder.join()
    process.stdout.close()
    process.stderr.close()
    assert (length, found.hexdigest()) == (len(BLOCK) * BLOCKS, WHOLE)
    assert words.count("reconnected") == 2
    assert words.count("done\n") == 1


def test_a_detached_command_is_listed_and_attached_to(place: Place) -> None:
    command = ["sh", "-c", "echo one; while [ ! -e go ]; do sleep 0.05; done; rm go; echo two; exit 9"]
    exec_id = place.exec(*command, options=["--detach"]).stdout.strip()
    listed = json.loads(place.fal("runners", "execs", place.runner_id, "--json").stdout)["execs"]
    (mine,) = [found for found in listed if found["exec_id"] == exec_id]
    assert (mine["command"], mine["exit_code"], mine["attached"]) == (command, None, False)
    place.exec("touch", "go")
    attached = place.fal("runners", "attach", exec_id)
    assert (attached.returncode, attached.stdout) == (9, "one\ntwo\n")
    # A command that ended recently can be read again, within its kept output.
    assert place.fal("runners", "attach", exec_id, "--runner", place.runner_id).returncode == 9
    assert "exited 9" in place.fal("runners", "execs").stdout
    missing = place.fal("runners", "attach", "no-such-id")
    assert missing.returncode == 1
    assert "no-such-id" in missing.stderr


def test_what_was_dropped_is_told(place: Place) -> None:
    exec_id = place.exec("head", "-c", "100000000", "/dev/zero", options=["--detach"]).stdout.strip()
    with place.sdk() as sdk:
        until(lambda: sdk.controller().get_exec(exec_id).exit_code == 0, "it has ended")
        reported: list[str] = []
        with sdk.runners.attach(exec_id, on_notice=reported.append) as session:
            kept = sum(len(output.data) for output in session)
        assert session.exit_code == 0
        assert kept + session.dropped_bytes == 100_000_000
        assert 50_000_000 < kept <= 64 * 2**20
        assert reported == [f"{session.dropped_bytes:,} bytes of output were dropped here: nobody read them in time"]


def test_the_newest_reader_takes_over(place: Place) -> None:
    with place.sdk() as sdk:
        first = sdk.runners.exec_stream(place.runner_id, ["cat"], interactive=True)
        assert isinstance(first, ExecSession)
        first.send(b"one")
        outputs = iter(first)
        assert next(outputs).data == b"one"
        with sdk.runners.attach(first.exec_id) as second:
            again = iter(second)
            assert next(again).data == b"one"  # it was not acknowledged
            with pytest.raises(AbortedError):
                next(outputs)
            second.send(b"two")
            second.close_input()
            assert b"".join(output.data for output in again) == b"two"
            assert second.exit_code == 0


async def test_the_asyncio_face_does_the_same(place: Place) -> None:
    from fal.api import AsyncServerlessClient

    async with AsyncServerlessClient(host=place.controller.host, api_key=place.controller.key) as sdk:
        ran = await sdk.runners.exec(place.runner_id, ["sh", "-c", "cat; exit 3"], stdin=BLOCK * 40, env={"A": "b"})
        assert (ran.exit_code, ran.stdout == BLOCK * 40) == (3, True)
        started = await sdk.runners.exec(place.runner_id, ["echo", "hi"], detach=True)
        async with await sdk.runners.attach(started.exec_id) as session:
            assert [output.data async for output in session] == [b"hi\n"]
        assert started.exec_id in [found.exec_id for found in await sdk.runners.execs()]
        with pytest.raises(DeadlineExceededError):
            await sdk.runners.exec(place.runner_id, ["sleep", "1000"], timeout=0.2)


def test_a_runner_that_is_gone_says_so_at_once(place: Place) -> None:
    place.controller.fal("deploy", str(ROOT / "examples/hello.py"), "--app-name", "gone", "--auth", "public")
    assert place.controller.call("/local/gone", {"name": "x"}).status == 200
    runners = json.loads(place.controller.fal("runners", "list", "--json").stdout)["runners"]
    runner_id = next(runner["runner_id"] for runner in runners if runner["alias"] == "gone")
    process = subprocess.Popen(
        [str(BIN / "fal"), "runners", "exec", runner_id, "--", "sh", "-c", "echo in; sleep 1000"],
        env=place.controller.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert first_line(process) == "in"
    place.controller.fal("apps", "delete", "gone")
    place.controller.fal("runners", "kill", runner_id, check=False)  # the deletion may have ended it already
    process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGKILL, 254)  # its outcome, or a report that it is unknown
    with place.sdk() as sdk:
        until(lambda: sdk.controller().get_runner(runner_id).state is RunnerState.TERMINATED, "the runner has ended")
        for gone in (runner_id, "no-such-runner"):
            with pytest.raises(NotFoundError):
                sdk.runners.exec(gone, ["true"])
            with pytest.raises(NotFoundError):
                sdk.controller().shell_runner(gone, ["true"], tty=False).wait()
    done = place.fal("runners", "exec", runner_id, "--", "true")
    assert done.returncode == 1
    assert runner_id in done.stderr


def test_input_in_small_pieces_to_a_command_that_says_nothing(place: Place) -> None:
    with place.sdk() as sdk:
        ran = sdk.runners.exec(place.runner_id, ["wc", "-c"], stdin=iter([b"x" * 50_000] * 100))
    assert (ran.exit_code, ran.stdout) == (0, b"5000000\n")


def test_a_command_that_writes_much_more_than_it_reads_does_not_get_stuck(place: Place) -> None:
    grow = "import sys\nwhile data := sys.stdin.buffer.read(1024): sys.stdout.buffer.write(data * 64)"
    given = os.urandom(600_000)
    process = place.popen("python", "-c", grow, stdin=subprocess.PIPE)
    output, _ = process.communicate(given, timeout=60)
    wanted = b"".join(given[start : start + 1024] * 64 for start in range(0, len(given), 1024))
    assert (process.returncode, len(output), output == wanted) == (0, len(wanted), True)
