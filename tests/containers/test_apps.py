"""An app in a container: built, called, entered, stopped, killed, adopted, rebuilt."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fal_runner.shim.address import ShimIdentity
from tests.containers.conftest import SECRET, Podman, deploy, write_app
from tests.support.controller import Controller, start
from tests.support.waiting import until


@pytest.fixture
def runner(controller: Controller, boxed: str) -> str:
    """Return the id of a runner of the app that has answered."""
    return call(controller, boxed)["runner"]


def call(controller: Controller, app: str) -> dict[str, str]:
    answer = controller.call(f"/local/{app}/", {"name": "bob"})
    assert answer.status == 200, answer.body
    found = answer.json()
    assert isinstance(found, dict)
    return found


def is_over(controller: Controller, runner: str) -> bool:
    return "TERMINATED" in controller.fal("runners", "get", runner).stdout


def logs(controller: Controller, runner: str) -> str:
    return controller.fal("runners", "logs", runner).stdout


class Watcher:
    """Reads the command lines of all processes, over and over."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    self.seen.add((process / "cmdline").read_bytes())
                except OSError:
                    continue

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    found = Watcher()
    yield found
    found.stop()


def test_an_app_is_built_with_arguments_files_and_secrets_and_called(controller, podman: Podman, watcher, tmp_path):
    done = deploy(controller, write_app(tmp_path), "Boxed", SECRET)
    watcher.stop()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Its code was sent as modules: boxed.py" in said
    assert "Trying podman" in said
    assert "Requirement already satisfied" not in said
    answer = call(controller, "boxed")
    assert (answer["greeting.txt"], answer["who"], answer["length"]) == ("good day", "Ada", str(len(SECRET)))
    assert (answer["name"], answer["module"]) == ("bob", "boxed")
    assert "setting up as 1234" in logs(controller, answer["runner"])
    commands = watcher.seen
    assert [line for line in commands if b"build\0" in line and b"podman" in line], "the build was watched"
    image = podman("images", "--format", "{{.ID}}", "--filter", "reference=localhost/fal-grpc").splitlines()[0]
    shown = podman("history", "--no-trunc", image) + podman("inspect", image) + said
    assert SECRET not in shown
    assert not [line for line in commands if SECRET.encode() in line]
    kept = [path for path in controller.state_dir.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    assert not [path for path in Path("/dev/shm").glob("fal-build-*/*") if SECRET in path.read_text(errors="replace")]


def test_what_works_here_is_said(controller, boxed, podman):
    engine = json.loads((controller.state_dir / "containers" / "engine.json").read_text())
    assert engine["options"]["limits"], "the machine of these tests holds limits"
    done = subprocess.run(
        ["fal", "doctor", "--json"],
        env={**controller.environment, **podman.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    [found] = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "containers"]
    assert found["status"] == "ok"
    assert "memory limits are enforced" in found["detail"]


def test_commands_run_inside(controller, runner):
    script = 'echo "$FAL_RUNNER_ID $MORE"; pwd; cat /srv/who; exit 5'
    done = controller.fal(
        "runners", "exec", "--cwd", "/tmp", "--env", "MORE=more words", runner, "--", "sh", "-c", script, check=False
    )
    assert (done.returncode, done.stdout) == (5, f"{runner} more words\n/tmp\nAda\n")
    done = controller.fal("runners", "exec", runner, "--", "cat", stdin=b"through")
    assert done.stdout == "through"


def test_a_shell_inside_has_a_terminal(controller, runner):
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("fal", ["fal", "runners", "shell", runner], controller.environment)
    output = b""

    def wait_for(words: bytes) -> bool:
        nonlocal output
        while words not in output:
            assert select.select([terminal], [], [], 60)[0], output
            output += os.read(terminal, 1000)
        return True

    os.write(terminal, b"test -t 0 && echo is-a-$((1+1))-terminal; trap 'exit 9' INT; cat\n")
    assert wait_for(b"is-a-2-terminal")
    os.write(terminal, b"\x03")
    try:
        while os.read(terminal, 1000):
            pass
    except OSError:
        pass
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 9


def test_a_stop_is_in_order_and_leaves_nothing(controller, runner, podman):
    controller.call("/local/boxed/leave", {})
    controller.fal("runners", "stop", runner)
    until(lambda: is_over(controller, runner), "the runner ends")
    assert "torn down" in logs(controller, runner)
    assert f"fal-{runner}" not in podman.containers()


def test_a_kill_leaves_nothing(controller, runner, podman):
    controller.fal("runners", "kill", runner)
    until(lambda: is_over(controller, runner), "the runner ends")
    assert "torn down" not in logs(controller, runner)
    assert f"fal-{runner}" not in podman.containers()


def test_a_worker_that_ends_in_a_request_keeps_its_exit_code(controller, runner):
    answer = controller.call("/local/boxed/end", {})
    assert answer.status == 503
    assert b"ended with exit code 3 while it worked on this request" in answer.body
    until(lambda: is_over(controller, runner), "the runner ends")
    assert "worker exited with code 3" in logs(controller, runner)


def test_a_runner_that_takes_more_memory_than_its_machine_type_ends_and_says_so(controller, runner):
    assert controller.call("/local/boxed/eat", {}).status >= 500
    until(lambda: is_over(controller, runner), "the runner ends")
    assert "a container with 512 MiB ran out of memory" in logs(controller, runner)
    assert "a container with 512 MiB ran out of memory" in controller.fal("runners", "get", runner).stdout


def test_a_runner_has_its_machine_types_share_of_the_processors_and_its_number_of_processes(controller, runner, podman):
    main = podman("inspect", "--format", "{{.State.Pid}}", f"fal-{runner}")
    groups = [line.split(":") for line in Path(f"/proc/{main}/cgroup").read_text().splitlines()]
    places = {name: Path(f"/sys/fs/cgroup/{name}{path}") for _, names, path in groups for name in names.split(",")}
    shares, weight = places.get("cpu", places[""]) / "cpu.shares", places[""] / "cpu.weight"
    # Version 2 has no shares; engines convert 512, half a core, to a weight.
    assert shares.read_text() == "512\n" if shares.exists() else weight.read_text() == "20\n"
    assert (places.get("pids", places[""]) / "pids.max").read_text() == "512\n"


def test_a_runner_that_writes_more_than_its_machine_type_has_ends_and_says_so(controller, runner, podman):
    answer = controller.call("/local/boxed/fill", {})
    assert answer.status == 503
    said = "machine type XS has 128 MiB for what its container writes, and that held more"
    assert said in answer.body.decode()
    until(lambda: is_over(controller, runner), "the runner ends")
    assert said in controller.fal("runners", "get", runner).stdout
    assert f"fal-{runner}" not in podman.containers()


def test_a_runner_that_starts_more_processes_than_its_machine_type_has_ends_alone(controller, runner):
    """The kernel of runsc ends then, with all of the container. Other runtimes refuse one more process."""
    assert controller.call("/local/boxed/crowd", {}).status >= 500
    controller.fal("runners", "kill", runner, check=False)  # other runtimes
    until(lambda: is_over(controller, runner), "the runner ends")
    assert call(controller, "boxed")["runner"] != runner


def test_what_a_runner_prints_is_not_kept_a_second_time_by_the_engine(controller, runner, podman):
    call(controller, "boxed")
    assert podman("inspect", "--format", "{{.HostConfig.LogConfig.Type}}", f"fal-{runner}") == "none"


def test_when_the_shim_dies_its_container_goes_too(controller, runner, podman):
    identity = ShimIdentity.read(controller.state_dir / "runners" / runner)
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    until(lambda: is_over(controller, runner), "the runner ends")
    assert f"fal-{runner}" not in podman.containers()
    assert call(controller, "boxed")["runner"] != runner


def test_the_next_controller_adopts_a_container(controllers, runner, podman):
    controllers[-1].process.kill()
    controllers[-1].process.wait()
    controllers.append(start(controllers[-1].state_dir, environment=podman.environment))
    assert call(controllers[-1], "boxed")["runner"] == runner
    assert controllers[-1].fal("runners", "exec", runner, "--", "cat", "/srv/who").stdout == "Ada\n"
    log = controllers[-1].state_dir / "controller.log"
    until(lambda: "containers: podman" in log.read_text().rpartition("listening on")[2], "what works is logged")


def test_a_runner_and_its_container_that_died_with_the_controller_are_cleared_away(controllers, runner, podman):
    identity = ShimIdentity.read(controllers[-1].state_dir / "runners" / runner)
    assert identity is not None
    controllers[-1].process.kill()
    controllers[-1].process.wait()
    os.kill(identity.pid, signal.SIGKILL)
    controllers.append(start(controllers[-1].state_dir, environment=podman.environment))
    until(lambda: f"fal-{runner}" not in podman.containers(), "the container goes")
    assert call(controllers[-1], "boxed")["runner"] != runner


def test_an_image_that_the_engine_has_lost_is_built_again(controller, runner, podman):
    controller.fal("runners", "kill", runner)
    until(lambda: is_over(controller, runner), "the runner ends")
    podman("image", "rm", "--force", *podman("images", "-q", "--filter", "reference=localhost/fal-grpc").split())
    after = call(controller, "boxed")
    assert after["length"] == str(len(SECRET)), "the secret was kept, sealed"
    assert "DOCKER_PULL" in controller.fal("runners", "get", after["runner"]).stdout
