"""Run a tour of three machines with two controllers. It switches machines off; with `--ray`, Ray places runners."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.support import machines, ray
from tests.support.controller import BIN, ROOT, running
from tests.support.machines import Machine, Machines
from tests.support.postgresql import postgresql
from tests.support.waiting import until

APP = """
import os
import socket
import time
import fal

class Where(fal.App, name="where", keep_alive=300, min_concurrency={runners}, max_concurrency=3, max_multiplexing=1):
    machine_type = "GPU-DEMO"  # each machine has one
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> dict:
        time.sleep(0.3)
        return dict(machine=socket.gethostname(), pid=os.getpid())
"""
BOXES = ("alfa", "bravo", "charlie")
PORT = 7400
# A machine that does not answer is given up after a minute.
_PATIENCE_SECONDS = 240.0


class Demo:
    """A run that tells what it does. It shows each command and its output.

    Args:
        folder: for everything; the machines see one another's parts of it in `shared` alone.
        network: where the machines are.
        with_ray: whether Ray places runners.
    """

    def __init__(self, folder: Path, network: Machines, *, with_ray: bool) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.boxes = {name: network.add(name) for name in BOXES}
        self.with_ray = with_ray
        self.started = time.monotonic()
        key = self.shared / "master.key"
        key.write_text("ZGVtby1vZi1hLWNsdXN0ZXItb2YtdGhyZWUtYm94ZXM=\n")
        key.chmod(0o600)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))},
            "FAL_MASTER_KEY_FILE": str(key),
            "UV_OFFLINE": "1",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(ROOT / ".cache" / "uv")),
            "COLUMNS": "120",
            "LANG": "C.UTF-8",
            **(ray.ENVIRONMENT if with_ray else {}),
        }

    def tell(self, text: str) -> None:
        """Print what happens next."""
        print(f"\n[{time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def of(self, machine: Machine) -> dict[str, str]:
        """Return the environment of commands on a machine."""
        return {**self.environment, "HOME": str(machine.directory)}

    def fal(self, machine: Machine, *arguments: str, show: bool = True) -> str:
        """Run `fal` on a machine, show it, and return its output.

        Raises:
            SystemExit: it failed.
        """
        if show:
            print(f"{machine.name}$ fal {shlex.join(arguments)}", flush=True)
        done = machine.run([str(BIN / "fal"), *arguments], self.of(machine))
        if show:
            print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
        if done.returncode != 0:
            raise SystemExit(
                f"demo: `fal {shlex.join(arguments)}` on {machine.name} failed:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def ask(self, machine: Machine) -> dict[str, object]:
        """Call the app through a machine's controller. Return its answer, or what came instead."""
        url = f"https://{machine.address}:{PORT}/local/where"
        authority = machine.directory / ".fal" / "controller" / "tls" / "ca.pem"
        words = ["curl", "-sS", "--max-time", "90", "--cacert", str(authority), "-d", "{}", url]
        done = machine.run(words, self.of(machine))
        try:
            found: dict[str, object] = json.loads(done.stdout)
        except ValueError:
            return {"error": (done.stdout + done.stderr).strip()}
        return found

    def call(self, machine: Machine, times: int, *, may_fail: bool = False) -> None:
        """Call the app several times at once, and say where it ran."""
        print(f"{machine.name}$ curl https://{machine.address}:{PORT}/local/where   # {times} times at once")
        with ThreadPoolExecutor(times) as threads:
            answers = list(threads.map(self.ask, [machine] * times))
        for answer, count in sorted(Counter(json.dumps(each, sort_keys=True) for each in answers).items()):
            print(f"  {count} x {answer}", flush=True)
        if not may_fail and any("machine" not in each for each in answers):
            raise SystemExit("demo: a call failed")

    def runners(self, machine: Machine) -> list[dict[str, str]]:
        """Return the runners that serve."""
        found = json.loads(self.fal(machine, "runners", "list", "--json", show=False))["runners"]
        return [each for each in found if each["state"] in {"RUNNING", "IDLE"}]

    def wait(self, look: Callable[[], object], what: str) -> None:
        """Wait for something, and say how long it took."""
        since = time.monotonic()
        until(look, what, _PATIENCE_SECONDS)
        print(f"  ... {time.monotonic() - since:.0f} s until {what}", flush=True)

    def start(self, url: str) -> None:
        """Start the controllers and the nodes."""
        alfa, bravo, _ = self.boxes.values()
        self.environment["FAL_DATABASE_URL"] = url
        for machine, part in ((alfa, "The first controller has the database."), (bravo, "The second one waits.")):
            self.tell(part)
            self.up(machine)
        self.tell("A node process on each machine; each joins with the token that it printed.")
        for machine in self.boxes.values():
            self._join(alfa, machine)
        self.fal(alfa, "node", "list")

    def up(self, machine: Machine) -> None:
        """Start the controller of a machine."""
        alfa, bravo, _ = self.boxes.values()
        both = ["--tls-name", alfa.address, "--tls-name", bravo.address]
        words = ["up", "-d", "--standby", "--host", machine.address, "--port", str(PORT), *both]
        engine = ["--engine", "ray", "--ray-address", ray.ADDRESS, "--ray-python", str(ray.PYTHON)]
        self.fal(machine, *words, "--content-dir", str(self.shared / "content"), *(engine if self.with_ray else []))

    def _join(self, owner: Machine, machine: Machine) -> None:
        words = ["node", "up", "--host", machine.address, "--gpu", "GPU-DEMO=1"]
        print(f"{machine.name}$ fal {shlex.join(words)}", flush=True)
        node = machine.popen([str(BIN / "fal"), *words], self.of(machine), machine.directory / "node.log")
        assert node.outer.stdout is not None
        lines = [node.outer.stdout.readline() for _ in range(3)]
        token = lines[2].removeprefix("token: ").strip()
        if not token:
            raise SystemExit(f"demo: no node on {machine.name}: {(machine.directory / 'node.log').read_text()}")
        done = owner.run(["sh", "-c", f"echo {token} | {BIN / 'fal'} node join {machine.address}:7411"], self.of(owner))
        print(f"{owner.name}$ fal node join {machine.address}:7411\n  {done.stdout.strip() or done.stderr}", flush=True)

    def serve(self) -> None:
        """Deploy an app, and call it."""
        alfa, bravo, _ = self.boxes.values()
        app = self.shared / "where.py"
        app.write_text(APP.format(runners=3))
        self.tell("Deploy an app with three runners, through the controller that waits: it passes everything on.")
        self.fal(bravo, "deploy", str(app))
        self.wait(lambda: len(self.runners(bravo)) == 3, "three runners serve")
        self.fal(bravo, "runners", "list", "-o", "wide")
        if self.with_ray:
            self.fal(alfa, "status")
        self.call(bravo, 12)

    def lose_owner(self) -> None:
        """Switch off the machine with the controller that has the database."""
        alfa, bravo, _ = self.boxes.values()
        before = {each["runner_id"] for each in self.runners(bravo) if not each["node"].startswith("alfa-")}
        self.tell("Switch alfa off: the controller that has the database, its node and a runner are gone at once.")
        answers: list[dict[str, object]] = []
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                answers.append(self.ask(bravo))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        alfa.power_off()
        try:
            self.wait(lambda: "epoch 2, held" in self.fal(bravo, "status", show=False), "bravo has the database")
            count = len(answers)
            self.wait(lambda: sum("machine" in each for each in answers[count:]) >= 5, "calls are answered again")
        finally:
            done.set()
            asking.join()
        failed = [each for each in answers if "machine" not in each]
        print(f"  {len(answers)} calls meanwhile, of which {len(failed)} failed", flush=True)
        for text in sorted({json.dumps(each) for each in failed}):
            print(f"  {text[:200]}")
        after = {each["runner_id"] for each in self.runners(bravo)}
        if not before <= after:
            raise SystemExit("demo: a runner of the other machines was lost")
        print("  the runners on bravo and charlie are the same as before")
        self.fal(bravo, "status")

    def lose_node(self) -> None:
        """Switch off another machine, and return both."""
        alfa, bravo, charlie = self.boxes.values()
        self.tell("Switch charlie off, too. A call that it still gets is lost a minute later, with its runner.")
        charlie.power_off()
        self.call(bravo, 5, may_fail=True)
        self.wait(
            lambda: all(each["node"].startswith("bravo-") for each in self.runners(bravo)), "lost runners are given up"
        )
        self.fal(bravo, "runners", "list", "-o", "wide")
        self.tell("Switch alfa on again. Its controller waits for bravo's, and its node gets a runner.")
        alfa.power_on()
        if self.with_ray:
            self.start_ray(alfa)
        self.up(alfa)
        node = alfa.popen(
            [str(BIN / "fal"), "node", "up", "--host", alfa.address, "--gpu", "GPU-DEMO=1"],
            self.of(alfa),
            alfa.directory / "node.log",
        )
        assert node.outer.stdout is not None
        print(f"  {node.outer.stdout.readline().strip()}")
        self.wait(lambda: len(self.runners(bravo)) == 2, "a runner serves on alfa")
        self.call(bravo, 8)

    def start_ray(self, machine: Machine) -> None:
        """Start Ray on a machine."""
        ray.start_worker(machine, {"GPU-DEMO": 1.0}, self.folder / f"ray-{machine.name}.log").wait()

    def end(self) -> None:
        """Stop what runs, in order."""
        alfa, bravo, _ = self.boxes.values()
        self.tell("Stop.")
        self.fal(bravo, "apps", "delete", "where", "--yes")
        self.wait(lambda: not self.runners(bravo), "its runners ended")
        self.fal(alfa, "down")
        self.fal(bravo, "down")


def tour(folder: Path, *, with_ray: bool) -> None:
    """Run the steps among machines of their own."""
    started = time.monotonic()
    (folder / "shared" / "content").mkdir(parents=True)
    with ExitStack() as stack:
        network = stack.enter_context(machines.network(folder / "machines"))
        database = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg"))
        server = stack.enter_context(postgresql(Path(database)))
        demo = Demo(folder, network, with_ray=with_ray)
        demo.tell(f"Three machines are on: {', '.join(f'{b.name} at {b.address}' for b in demo.boxes.values())}.")
        print("  They share a PostgreSQL server and a directory; nothing leads out of their network.")
        if with_ray:
            demo.tell("Start Ray: its head beside the database, and a part on each machine.")
            head = ray.start_head(folder / "ray-head.log")
            stack.callback(head.end)
            head.wait()
            for machine in demo.boxes.values():
                demo.start_ray(machine)
        demo.start(server.make("demo"))
        demo.serve()
        demo.lose_owner()
        demo.lose_node()
        demo.end()
    print(f"\nDone in {time.monotonic() - started:.0f} s. Nothing is left running.")


def prepare(folder: Path) -> None:
    """Fill the cache with what the app needs. The machines reach no registry."""
    with running(folder / "controller", "--gpu", "GPU-DEMO=1") as local:
        app = folder / "where.py"
        app.write_text(APP.format(runners=0))
        local.fal("deploy", str(app))
        answer = local.call("/local/where", {})
        if answer.status != 200:
            raise SystemExit(f"demo: the app does not work: {answer.body.decode()}")


def main(arguments: Sequence[str]) -> int:
    """Run the demo; leave nothing behind."""
    with_ray = "--ray" in arguments
    with tempfile.TemporaryDirectory(prefix="fal-demo-") as name:
        if machines.alone():
            tour(Path(name), with_ray=with_ray)
            return 0
        print("Preparing the app ...", flush=True)
        prepare(Path(name))
    machines.main([sys.executable, "-m", "scripts.demo_cluster", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
