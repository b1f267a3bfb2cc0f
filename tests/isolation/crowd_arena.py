"""Says how many processes and threads runners may have: `python -m tests.isolation.crowd_arena LEVEL`, as arena.py.

Each app goes on until one is refused or it has far more than its machine type says.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from fal_runner.isolation.levels import Isolation
from fal_server.core.machines import RunnerLimits
from fal_server.engines.local.cgroup import RunnerGroups
from fal_server.engines.local.sandboxes import Sandboxes
from tests.engines.conftest import Environment, Rig
from tests.isolation.gpu_arena import waiting_worker
from tests.support.controller import ROOT

MOST, FAR_MORE = 60, 120
_CROWD = """
import subprocess
children = []
try:
    while len(children) < 120:
        children.append(subprocess.Popen(["sleep", "1000"]))
except OSError:
    pass
for child in children:
    child.kill()
print(len(children))
"""


def processes_and_stay() -> None:
    import subprocess
    import threading

    children: list[subprocess.Popen[bytes]] = []
    try:
        while len(children) < 120:
            children.append(subprocess.Popen(["sleep", "1000"]))
    except OSError:
        pass
    print(f"could start: {len(children)}", flush=True)
    threading.Event().wait()


def threads_and_stay() -> None:
    import threading

    end, count = threading.Event(), 0
    try:
        while count < 120:
            threading.Thread(target=end.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    print(f"could start: {count}", flush=True)
    end.wait()


async def look(level: Isolation) -> dict[str, dict[str, object]]:
    """Run an app in a cold and in a waiting worker. Run a command beside one, and return what was started and said."""
    place = Path(tempfile.mkdtemp(prefix="fal-arena-"))
    environment = Environment(place / "environment")
    state = place / "state"
    (state / "data").mkdir(parents=True)
    readable = [ROOT, *(Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
    sandboxes = Sandboxes(isolation=level, home=state / "home", data=lambda _: state / "data", readable=readable)
    rig = Rig(state, sandboxes)
    enforced = RunnerGroups.detect(state).enforced
    await rig.restart(warm_workers=1)
    limits = RunnerLimits(machine_type="TINY", memory_mib=None, processes=MOST, cpu_weight=100)
    found: dict[str, dict[str, object]] = {"machine": {"enforces": "processes" in enforced}}
    try:
        for name, app in (("cold", processes_and_stay), ("warm", processes_and_stay), ("threads", threads_and_stay)):
            waiting = await waiting_worker(rig) if name != "cold" else 0
            launch = rig.launch(app, python=environment.python, limits=limits)
            runner = await rig.start_launch(launch)
            line = await rig.lines.until(runner.runner_id, "could start: ")
            worker = await rig.lines.until(runner.runner_id, "worker started: process ")
            count = int(line.message.removeprefix("could start: "))
            if count < FAR_MORE:
                await rig.lines.until(runner.runner_id, f"machine type TINY has {MOST} processes and threads")
            found[name] = {"started": count, "waited": int(worker.message.rpartition(" ")[2]) == waiting}
            await rig.engine.kill(runner)
        runner = await rig.start_launch(rig.launch(_stay, python=environment.python, limits=limits))
        ran = await rig.run(runner, sys.executable, "-c", _CROWD)
        found["command"] = {"started": int(ran.stdout)}
        await rig.engine.kill(runner)
    finally:
        await rig.close()
        shutil.rmtree(place, ignore_errors=True)
    return found


def _stay() -> None:
    import threading

    threading.Event().wait()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(look(Isolation(sys.argv[1])))) + "\n")
