"""Runs a worker in a container. To the shim it looks like any other worker.

The shim runs `python -m fal_runner.isolation.container NOTE WORKER JOB_FD RESULT_FD`, as it runs `worker.py`. NOTE is
container.json in the runner's directory, and names engine and image. This process's environment holds the variables,
and the engine gets only their names. The job goes to the worker's standard input; the result comes through a named pipe
in the directory that both share.
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
SHARED_NAME = "container"
_RESULT = "result"
_CHUNK = 64 * 1024
_INIT = "init.py"
_LISTED_SIGNALS = set(signal.Signals)


class Note(TypedDict):
    """The content of container.json.

    Attributes:
        engine: the program to run.
        options: precede its command; earlier versions wrote none.
        run: options of `run`, such as limits.
        memory_mib: the memory limit of the container; 0 if there is none.
        variables: the engine's environment variables.
        image: the image's id.
        name: the container's name.
        entrypoint, cmd: replace the image's own, unless null.
        itself: whether to run the image as it is, without code of the app.
        names: the names of the container's variables.

        volumes: the machine's directories in the container, as `PATH:PATH-IN-IT`.
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
    """The paths in a worker's job; see `supervisor`."""

    port: int
    app_port: int
    paths: list[str]
    function: NotRequired[dict[str, str]]
    setup: NotRequired[dict[str, str]]


def run_command(note: Note, shared: Path, job: Job) -> list[str]:
    """Return the engine's command line for a runner.

    `--env NAME` takes the value from the engine's own environment, so values are not in arguments."""
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
    """Return the engine's command line for a command inside a runner's container.

    Args:
        command: empty for a login shell.
        names: its variables, in addition to the container's.
        directory: its working directory; by default the image's.
    """
    line = [*_program(note), "exec", "--interactive", *(["--tty"] if tty else [])]
    line += ["--workdir", directory] if directory else []
    for name in names:
        line += ["--env", name]
    return [*line, note["name"], *(command or ["/bin/sh", "-l"])]


def _program(note: Note) -> list[str]:
    return [note["engine"], *note.get("options", [])]


def move_in(job: Job, shared: Path) -> Job:
    """Copy the job's files into the shared directory. Return the job with the container's paths."""
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
    """Return the engine's own variables and those of the container. The latter must not change how the engine works."""
    passed = {name: variables[name] for name in names if name in variables}
    return {**passed, **note["variables"]}


def kill(note: Note) -> None:
    """Kill the container; one that is already ending keeps its exit code."""
    _ask(note, ["kill", note["name"]])


def written_directories(note: Note) -> list[Path] | None:
    """Return the machine's directories with what the container writes. They are its uppermost layer and own volumes.

    Returns:
        None if the engine does not know the container (yet); empty if its storage has no such layer, or hides it.
    """
    asked = subprocess.run(
        [*_program(note), "container", "inspect", note["name"]],
        env=note["variables"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        start_new_session=True,
    )
    # By what it says alone: the shim reaps every process, so its exit code may be unknown here.
    try:
        answer = json.loads(asked.stdout or "[]")
    except ValueError:
        return None
    if not answer:
        return None
    found = answer[0]
    layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    if not layer or not os.access(layer, os.R_OK | os.X_OK):
        return []
    volumes = [mount["Source"] for mount in found.get("Mounts") or [] if mount.get("Type") == "volume"]
    return [Path(place) for place in (layer, *volumes)]


def remove(note: Note) -> None:
    """Kill and remove the container if it still exists."""
    now = [] if Path(note["engine"]).name == "docker" else ["--time", "0"]
    _ask(note, ["rm", "--force", *now, note["name"]])


def _ask(note: Note, words: Sequence[str]) -> None:
    """Run the engine with these arguments; ignore failures."""
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
    """Read the job, run the container, and forward its result."""
    path = Path(sys.argv[1])
    job_fd, result_fd = int(sys.argv[-2]), int(sys.argv[-1])
    note = read_note(path)
    with open(job_fd, "rb") as pipe:
        text = pipe.read()
    if not text:
        sys.stderr.write("fal: the shim ended before it gave this worker its job\n")
        return 1
    job: Job = json.loads(text)
    shared = path.parent / SHARED_NAME
    os.mkfifo(shared / _RESULT)
    (shared / _RESULT).chmod(0o666)  # an image may run as another user; the runner's directory keeps everybody else out
    result = os.open(shared / _RESULT, os.O_RDWR | os.O_NONBLOCK)  # writing too, so that it never ends
    # Before anything of the image runs: it may replace what is in this directory, and links would lead out of it.
    moved = move_in(job, shared)
    process = subprocess.Popen(
        run_command(note, shared, job),
        env=engine_environment(note, os.environ, note["names"]),
        stdin=subprocess.DEVNULL if note["itself"] else subprocess.PIPE,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: process.send_signal(received))  # the engine forwards it
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:  # the engine failed, and its output says why
            process.stdin.write(json.dumps(moved).encode())
    _copy(result, result_fd, process)
    remove(note)
    code = process.wait()
    if code - 128 in _LISTED_SIGNALS:
        end_as(code - 128)  # an engine adds 128 to a signal's number, and the shim explains signals
    return code if code >= 0 else 128 - code


def _copy(source: int, target: int, process: subprocess.Popen[bytes]) -> None:
    """Forward output until the process has ended and all output is read."""
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
