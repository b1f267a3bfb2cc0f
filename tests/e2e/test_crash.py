"""A controller may die at any time in any way. Its runners keep serving, and the next one reattaches them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fal.api import SyncServerlessClient
from fal_grpc.adapter.runner import RunnerInfo, RunnerState
from fal_runner.process.proc import ProcessInfo, all_processes, process_info
from fal_server.core.addresses import RunnerAddress
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.store import AesVault, open_store
from fal_server.store.crypto.master_key import load_master_key
from tests.support import gate
from tests.support.controller import BIN, Controller, start
from tests.support.left_behind import (
    groups,
    identity,
    kill_everything,
    nothing_is_left,
    rows,
    sequence_faults,
    worker_of,
)
from tests.support.waiting import until

APP = """
import os, threading
import fal

class Steady(fal.App, name="steady", keep_alive=300, max_concurrency=1, max_multiplexing=4):
    termination_grace_period_seconds = 1
    machine_type = "XS"
    app_auth = "public"

    def setup(self) -> None:
        self.released = threading.Event()

    @fal.endpoint("/")
    def run(self) -> dict:
        print("asked", flush=True)
        return {"runner": os.environ["FAL_RUNNER_ID"]}

    @fal.endpoint("/hold")
    def hold(self) -> dict:
        print("holding", flush=True)
        self.released.wait()
        self.released.clear()
        return {}

    @fal.endpoint("/release")
    def release(self) -> dict:
        self.released.set()
        return {}

    @fal.endpoint("/daemon")
    def daemon(self) -> dict:
        import subprocess
        subprocess.run("(setsid nohup sleep 1000 >/dev/null 2>&1 &)", shell=True, check=True, env={})
        return {}
"""


class Site:
    """A state directory and its current controller."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.controller = start(state_dir)

    def die(self) -> None:
        """Send SIGKILL."""
        self.controller.process.kill()
        self.controller.process.wait()

    def come_back(self) -> Controller:
        self.controller = start(self.state_dir)
        return self.controller

    def ask(self) -> str:
        """Send a request through the gateway; return the runner that answered."""
        answer = self.controller.call("/local/steady/", {})
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["runner"])

    def ask_directly(self, runner_id: str) -> str:
        """Send a request to the runner's own port, as a controller does."""
        address = asyncio.run(self._address(runner_id))
        return str(json.loads(gate.ask(address, "POST", "/"))["runner"])

    async def _address(self, runner_id: str) -> RunnerAddress:
        store = await open_store(self.state_dir / "fal.db", AesVault(load_master_key(self.state_dir, {})))
        try:
            runner = await store.get_runner(EVERY_ACCOUNT, runner_id)
            assert runner is not None
            return runner.address
        finally:
            await store.close()

    def release(self) -> None:
        """Let the request that `hold` started end."""
        assert self.controller.call("/local/steady/release", {}).status == 200

    def runner(self) -> RunnerInfo:
        """Return the only runner of the app."""
        with SyncServerlessClient(host=self.controller.host, api_key=self.controller.key) as client:
            (runner,) = [r for r in client.runners.list() if r.alias == "steady"]
            return runner

    def hold(self) -> subprocess.Popen[bytes]:
        """Start a request that stays open on the runner."""
        held = len(rows(self.state_dir, "select 1 from log_lines where message = 'holding'"))
        url = f"http://{self.controller.host}/local/steady/hold"
        script = f"import urllib.request as u; u.urlopen(u.Request({url!r}, b'{{}}'))"
        caller = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        until(
            lambda: len(rows(self.state_dir, "select 1 from log_lines where message = 'holding'")) > held,
            "the request is under way",
        )
        return caller


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    """Run a controller with one app; each test leaves a controller running."""
    folder = tmp_path_factory.mktemp("crash")
    source = folder / "steady.py"
    source.write_text(APP)
    site = Site(folder / "state")
    try:
        site.controller.fal("deploy", str(source), "--app-name", "steady")
        yield site
        assert site.controller.stop() == 0
        nothing_is_left(site.state_dir)
        assert sequence_faults(site.state_dir) == []
    finally:
        if site.controller.process.poll() is None:
            site.controller.process.kill()
            site.controller.process.wait()
        kill_everything(site.state_dir)


@pytest.fixture
def site(shared: Site) -> Site:
    """Return the same, with a controller that answers."""
    if shared.controller.process.poll() is not None:
        shared.come_back()
    return shared


def test_runners_serve_on_and_are_taken_back(site: Site) -> None:
    runner_id = site.ask()
    site.controller.fal("secrets", "set", "KEPT=yes")
    key = site.controller.fal("keys", "create", "--scope", "api", "--desc", "kept").stdout
    before = {seen.pid for seen in groups(site.state_dir)[runner_id]}
    for _ in range(2):
        site.die()
        assert site.ask_directly(runner_id) == runner_id
        site.come_back()
        assert site.ask() == runner_id
        assert site.runner().in_flight_requests == 0
    assert {seen.pid for seen in groups(site.state_dir)[runner_id]} == before
    assert list(groups(site.state_dir)) == [runner_id]
    assert "KEPT" in site.controller.fal("secrets", "list").stdout
    assert "kept" in site.controller.fal("keys", "list").stdout
    assert key
    query = "select count(*) from log_lines where runner_id = ? and message = 'asked'"
    until(lambda: rows(site.state_dir, query, runner_id) == [(5,)], "each line is stored once")


def test_a_request_that_the_controller_took_along_counts_until_its_end(site: Site) -> None:
    runner_id = site.ask()
    caller = site.hold()
    assert site.runner().in_flight_requests == 1
    site.die()
    assert caller.wait(30) != 0
    site.come_back()
    assert site.ask() == runner_id
    assert site.runner().in_flight_requests == 1
    site.release()
    until(lambda: site.runner().in_flight_requests == 0, "its slot is free")


@pytest.mark.parametrize("seed", range(2))
def test_a_start_that_is_cut_off_at_any_time_ends_in_one_runner(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    site.controller.fal("runners", "kill", site.ask())
    until(lambda: not groups(site.state_dir), "the runner is gone")
    for _ in range(2):
        # The caller loses its connection with the controller. The test is about the runner, which may die at any time.
        request = threading.Thread(target=lambda host=site.controller: _ignore_refusal(host))
        request.start()
        with pytest.raises(subprocess.TimeoutExpired):
            site.controller.process.wait(chance.uniform(0, 1.2))
        site.die()
        request.join()
        site.come_back()
    runner_id = site.ask()
    assert site.runner().runner_id == runner_id
    until(lambda: list(groups(site.state_dir)) == [runner_id], "one group lives")


def _ignore_refusal(controller: Controller) -> None:
    try:
        controller.call("/local/steady/", {}, timeout=30)
    except OSError:
        return


def test_what_ran_for_a_call_ends_with_its_controller(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "waiting.py"
    source.write_text(
        "import fal\n\n@fal.function(machine_type='XS', requirements=[])\ndef wait():\n"
        "    import threading\n    print('waiting', flush=True)\n    threading.Event().wait(600)\n"
    )
    site.ask()
    run = subprocess.Popen(
        [BIN / "fal", "run", f"{source}::wait"],
        env=site.controller.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    query = "select runner_id from log_lines where message = 'waiting'"
    ((runner_id,),) = until(lambda: rows(site.state_dir, query), "it runs")
    site.die()
    _, said = run.communicate(timeout=60)
    assert run.returncode != 0, said
    assert str(runner_id) in groups(site.state_dir)
    site.come_back()
    until(lambda: str(runner_id) not in groups(site.state_dir), "it is ended")
    until(lambda: not (site.state_dir / "runners" / str(runner_id)).exists(), "its directory is deleted")


def test_what_a_power_cut_leaves_is_cleared_away(site: Site) -> None:
    runner_id = site.ask()
    site.die()
    root = site.state_dir
    foreign = subprocess.Popen(["sleep", "1000"])
    seen = process_info(foreign.pid)
    assert seen is not None
    stored = {"pid": foreign.pid, "started_ticks": seen.started_ticks, "host": "127.0.0.1", "port": 1, "grpc_port": 2}
    (root / "controller.json").write_text(json.dumps({**stored, "started_ticks": 1, "version": "0"}))
    (root / ".draft-cut-off").write_text("half")
    (root / "blobs" / "ab").mkdir(exist_ok=True)
    (root / "blobs" / "ab" / ".draft-cut-off").write_text("half")
    unfinished = root / "environments" / f"{'0' * 64}-1"
    unfinished.mkdir()
    shim = root / "runners" / runner_id / "shim.json"
    shim.write_text(shim.read_text()[:20])
    nobody = root / "runners" / "nobody"
    nobody.mkdir()
    # A foreign process with the pid that a shim once had: it must survive.
    forged = {"pid": foreign.pid, "started_ticks": seen.started_ticks, "boot_id": "x", "mark": "y", "address": "z"}
    (nobody / "shim.json").write_text(json.dumps(forged))
    (root / "runners" / "a-file").write_text("")
    site.come_back()
    assert site.ask() != runner_id
    assert list(groups(root)) == [site.runner().runner_id]
    assert [path.name for path in (root / "runners").iterdir()] == [site.runner().runner_id]
    assert not list(root.rglob(".draft-*"))
    assert not unfinished.exists()
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


@pytest.mark.parametrize("agree", ["pid and start time", "all but the environment"])
def test_a_living_process_that_is_not_ours_is_never_hit(site: Site, agree: str) -> None:
    runner_id = site.ask()
    site.die()
    for seen in groups(site.state_dir)[runner_id]:
        os.kill(seen.pid, signal.SIGKILL)
    until(lambda: not groups(site.state_dir), "the machine has lost its runner")
    foreign = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    seen = process_info(foreign.pid)
    assert seen is not None
    forged = identity(site.state_dir, runner_id)
    forged["pid"] = foreign.pid
    forged["started_ticks"] = seen.started_ticks
    (site.state_dir / "runners" / runner_id / "shim.json").write_text(json.dumps(forged))
    if agree != "pid and start time":
        _rewrite_process(site.state_dir, runner_id, foreign.pid, seen.started_ticks)
    site.come_back()
    assert site.ask() != runner_id
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


def _rewrite_process(state_dir: Path, runner_id: str, pid: int, ticks: int) -> None:
    with closing(sqlite3.connect(state_dir / "fal.db")) as database, database:
        query = "update runners set handle = ? where runner_id = ?"
        assert database.execute(query, (f"{pid}/{ticks}", runner_id)).rowcount == 1


def test_an_admin_key_that_was_not_written_down_is_made_again(tmp_path: Path) -> None:
    site = Site(tmp_path / "state")
    old = site.controller.key
    site.die()
    (site.state_dir / "admin.key").unlink()
    new = site.come_back().key
    assert new != old
    listed = json.loads(site.controller.fal("keys", "list", "--json").stdout)["keys"]
    assert len(listed) == 1
    assert site.controller.stop() == 0


def test_down_while_busy_waits_then_ends_what_is_held(site: Site) -> None:
    runner_id = site.ask()
    caller = site.hold()
    site.controller.process.send_signal(signal.SIGTERM)
    # The second signal no longer waits for requests.
    until(lambda: "stopping in order" in (site.state_dir / "controller.log").read_text(), "it is stopping")
    site.controller.process.send_signal(signal.SIGTERM)
    assert site.controller.process.wait(60) == 0
    assert caller.wait(30) != 0
    nothing_is_left(site.state_dir)
    assert not (site.state_dir / "controller.json").exists()
    assert site.come_back()
    assert site.ask() != runner_id


@pytest.mark.parametrize("seed", range(2))
def test_a_controller_killed_while_it_stops_leaves_what_the_next_one_ends(site: Site, seed: int) -> None:
    site.ask()
    site.controller.process.send_signal(signal.SIGTERM)
    try:
        site.controller.process.wait(random.Random(seed).uniform(0, 0.6))
    except subprocess.TimeoutExpired:
        site.die()
    site.come_back()
    site.ask()
    assert site.controller.stop() == 0
    nothing_is_left(site.state_dir)


def test_down_can_leave_the_runners_serving(site: Site) -> None:
    runner_id = site.ask()
    site.controller.fal("down", "--keep-runners")
    assert site.controller.process.wait(60) == 0
    assert site.ask_directly(runner_id) == runner_id
    assert not (site.state_dir / "controller.json").exists()
    site.come_back()
    assert site.ask() == runner_id
    assert site.runner().state is RunnerState.IDLE


def test_a_dead_worker_takes_daemons_without_a_name_along(site: Site) -> None:
    """A process without session and environment is found by its parent. The shim is a subreaper."""
    runner_id = site.ask()
    daemons = {p.pid for p in _sleepers()}
    assert site.controller.call("/local/steady/daemon", {}).status == 200
    # The answer came after the fork, perhaps before the daemon has set itself up and lost its parent.
    shim = identity(site.state_dir, runner_id)["pid"]
    (daemon,) = until(
        lambda: [p for p in _sleepers() if p.pid not in daemons and p.parent == shim], "the shim has the daemon"
    )
    os.kill(worker_of(site.state_dir, runner_id), signal.SIGKILL)
    query = "select 1 from runners where runner_id = ? and state = 'terminated'"
    until(lambda: rows(site.state_dir, query, runner_id), "the end is stored")
    found = process_info(daemon.pid)
    assert found is None or found.started_ticks != daemon.started_ticks or not found.alive


def _sleepers() -> list[ProcessInfo]:
    return [seen for seen in all_processes() if _command(seen.pid) == b"sleep\x001000\x00"]


def _command(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


ONE_AT_A_TIME = """
import os, threading
import fal

LOCK, INSIDE, MOST = threading.Lock(), 0, 0

class Single(fal.App, name="single", keep_alive=300, max_concurrency=1, max_multiplexing=1):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/hold")
    def hold(self) -> dict:
        return self._count(lambda: os.path.exists("/data/go"))

    @fal.endpoint("/")
    def run(self) -> dict:
        return self._count(lambda: True)

    def _count(self, done) -> dict:
        global INSIDE, MOST
        with LOCK:
            INSIDE += 1
            MOST = max(MOST, INSIDE)
        open("/data/inside", "w").close()
        while not done():
            threading.Event().wait(0.05)
        with LOCK:
            INSIDE -= 1
        return {"most": MOST, "runner": os.environ["FAL_RUNNER_ID"]}
"""


def test_a_runner_that_still_works_for_the_dead_controller_gets_nothing_beside_it(tmp_path: Path) -> None:
    site = Site(tmp_path / "state")
    (tmp_path / "app.py").write_text(ONE_AT_A_TIME)
    data = site.state_dir / "data"
    try:
        site.controller.fal("deploy", str(tmp_path / "app.py"))
        runner = json.loads(site.controller.call("/local/single/", {}).body)["runner"]
        (inside,) = data.rglob("inside")
        inside.unlink()
        first = threading.Thread(target=lambda: _call(site.controller, "/local/single/hold"), daemon=True)
        first.start()
        until(inside.exists, "the first request is inside")
        site.die()
        controller = site.come_back()
        second: list[dict[str, object]] = []
        caller = threading.Thread(target=lambda: second.append(json.loads(controller.call("/local/single/", {}).body)))
        caller.start()
        until(lambda: "RUNNING" in controller.fal("runners", "list").stdout, "the runner is known to work on something")
        assert second == []
        inside.with_name("go").touch()
        caller.join(60)
        assert second == [{"most": 1, "runner": runner}]
    finally:
        site.controller.stop()


def _call(controller: Controller, path: str) -> None:
    with suppress(OSError):  # its controller dies
        controller.call(path, {})
