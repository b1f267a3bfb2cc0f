"""Runs podman or docker in the worker's place, so that a worker in a container looks to the shim like any other.

`python -m fal_runner.isolation.container NOTE WORKER JOB_FD RESULT_FD`, as `worker.py` is run. NOTE (container.json,
in the runner's directory) names engine and image. Variables are in this process's environment, and the engine gets
their names alone. The job goes to the worker's standard input; its result comes by a named pipe in the directory that
both share.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NotRequired, TypedDict

from fal_runner.isolation.confinement import end_as

NOTE_VARIABLE = "FAL_CONTAINER_NOTE"
SHARED = "/fal"
_SHARED_NAME = "container"
_RESULT = "result"
_CHUNK = 64 * 1024
_INIT = "init.py"
_LISTED_SIGNALS = set(signal.Signals)


class Note(TypedDict):
    """The content of container.json.

    Attributes:
        engine: the program to run.
        options: come before its verb; an earlier version wrote none.
        run: options of `run`, such as limits.
        memory_mib: the memory that the container may use; 0 if that is not limited.
        variables: the engine's environment variables.
        image: the image's id.
        name: the container's name.
        entrypoint, cmd: these replace the image's own, unless null.
        itself: whether the image is run as it is, without any code of the app's.
        names: the variables that the container gets.
        volumes: what it sees of the machine, as `PLACE:PLACE-IN-IT`.
    """

    engine: str
    options: NotRequired[list[str]]
    run: NotRequired[list[str]]
    memory_mib: NotRequired[int]
    variables: dict[str, str]
    image: str
    name: str
    entrypoint: list[str] | None
    cmd: list[str] | None
    itself: bool
    names: list[str]
    volumes: list[str]


class Job(TypedDict):
    """The part of a worker's job that matters here; see `supervisor`."""

    port: int
    app_port: int
    paths: list[str]
    function: NotRequired[dict[str, str]]
    setup: NotRequired[dict[str, str]]


def run_command(note: Note, shared: Path, job: Job) -> list[str]:
    """The engine's command line for a runner; `--env NAME` takes the value from the engine's own environment."""
    command = [*_program(note), "run", "--rm", "--name", note["name"], *note.get("run", [])]
    for name in note["names"]:
        command += ["--env", name]
    for volume in note["volumes"]:
        command += ["--volume", volume]
    if note["itself"]:
        command += ["--publish", f"127.0.0.1:{job['port']}:{job['app_port']}"]
        entrypoint = note["entrypoint"]
        if entrypoint:
            command += ["--entrypoint", json.dumps(entrypoint) if len(entrypoint) > 1 else entrypoint[0]]
        return [*command, note["image"], *(note["cmd"] or [])]
    command += ["--interactive", "--network", "host", "--volume", f"{shared}:{SHARED}"]
    command += ["--entrypoint", "python3"]
    return [*command, note["image"], f"{SHARED}/{_INIT}", f"{SHARED}/{_RESULT}"]


def exec_command(
    note: Note, command: Sequence[str], names: Sequence[str], *, tty: bool, directory: str = ""
) -> list[str]:
    """The engine's command line for a command inside a runner's container.

    Args:
        command: empty for a login shell.
        names: variables that it gets, in addition to those of the container.
        directory: where it starts; by default the image's working directory.
    """
    line = [*_program(note), "exec", "--interactive", *(["--tty"] if tty else [])]
    line += ["--workdir", directory] if directory else []
    for name in names:
        line += ["--env", name]
    return [*line, note["name"], *(command or ["/bin/sh", "-l"])]


def _program(note: Note) -> list[str]:
    return [note["engine"], *note.get("options", [])]


def move_in(job: Job, shared: Path) -> Job:
    """Copy what the job names into the shared directory; return the job as the container sees it."""
    moved = job.copy()
    moved["paths"] = []
    if "function" in job:
        moved["function"] = _moved(job["function"], shared / "function")
    if "setup" in job:
        moved["setup"] = _moved(job["setup"], shared / "setup")
    return moved


def _moved(pickled: dict[str, str], to: Path) -> dict[str, str]:
    shutil.copyfile(pickled["path"], to)
    to.chmod(0o644)
    return {**pickled, "path": f"{SHARED}/{to.name}"}


def read_note(path: Path) -> Note:
    note: Note = json.loads(path.read_text())
    return note


def engine_environment(note: Note, variables: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The engine's own variables, and those that it passes on by name; no other one changes how it works."""
    passed = {name: variables[name] for name in names if name in variables}
    return {**passed, **note["variables"]}


def kill(note: Note) -> None:
    """Kill what runs in the container; one that ends already keeps its exit code."""
    _ask(note, ["kill", note["name"]])


def remove(note: Note) -> None:
    """Remove the container if it is still there, without a grace."""
    now = [] if Path(note["engine"]).name == "docker" else ["--time", "0"]
    _ask(note, ["rm", "--force", *now, note["name"]])


def _ask(note: Note, words: Sequence[str]) -> None:
    """Run the engine with these words, whatever comes of it."""
    subprocess.run(
        [*_program(note), *words],
        env=note["variables"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        start_new_session=True,
    )


def main() -> int:
    """Read the job, run the container, pass its result on."""
    path = Path(sys.argv[1])
    job_fd, result_fd = int(sys.argv[-2]), int(sys.argv[-1])
    note = read_note(path)
    with open(job_fd, "rb") as pipe:
        text = pipe.read()
    if not text:
        sys.stderr.write("fal: the shim ended before it gave this worker its job\n")
        return 1
    job: Job = json.loads(text)
    shared = path.parent / _SHARED_NAME
    os.mkfifo(shared / _RESULT)
    (shared / _RESULT).chmod(0o666)  # an image may run as another user; nobody else can enter the runner's directory
    result = os.open(shared / _RESULT, os.O_RDWR | os.O_NONBLOCK)  # open for writing too, so that it never ends
    process = subprocess.Popen(
        run_command(note, shared, job),
        env=engine_environment(note, os.environ, note["names"]),
        stdin=subprocess.DEVNULL if note["itself"] else subprocess.PIPE,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: process.send_signal(received))  # the engine passes it on
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:  # the engine refused, and says why
            process.stdin.write(json.dumps(move_in(job, shared)).encode())
    _copy(result, result_fd, process)
    remove(note)
    code = process.wait()
    if code - 128 in _LISTED_SIGNALS:
        end_as(code - 128)  # an engine reports a signal as a code from 128, and the shim explains signals
    return code if code >= 0 else 128 - code


def _copy(source: int, target: int, process: subprocess.Popen[bytes]) -> None:
    """Pass on what comes until the process has ended and everything has come."""
    ended, notify = os.pipe()

    def wait() -> None:
        process.wait()
        os.close(notify)

    threading.Thread(target=wait, daemon=True).start()
    finished = False
    with open(target, "wb") as results:
        while True:
            ready, _, _ = select.select([source, ended], [], [])
            finished = finished or ended in ready
            try:
                results.write(os.read(source, _CHUNK))
                results.flush()
            except BlockingIOError:
                if finished:
                    return


if __name__ == "__main__":
    sys.exit(main())
