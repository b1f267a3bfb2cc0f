"""Checks the requirements of a controller on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fal.extras import CONTROLLER, missing
from fal_cli.commands.doctor.check import Check, Status
from fal_cli.controller_process import ControllerProcess, find_controller, option_of
from fal_cli.exit_codes import CommandError
from fal_cli.presentation.nodes import shown_bounds, shown_gpus
from fal_cli.presentation.ray import ray_machines, ray_unlabelled, shown_ray
from fal_cli.presentation.trusted import by_the_door, reached_there, trusted_networks
from fal_cli.version import VERSION

if TYPE_CHECKING:
    from fal.api import NodeInfo

_PORT = 7400
_NODE_FIXES = {
    "does not answer": "`fal node up` on that machine starts its node process again.",
    "no orders of this controller": (
        "Stop the other controller; then `fal node up --new-token` on that machine lets it join this one again."
    ),
}
_PROGRAM_SECONDS = 60.0
_LEAST_FREE_BYTES = 1 << 30
_FEW_FREE_BYTES = 10 << 30


def check_machine(state_dir: Path) -> Iterator[Check]:
    """Check a controller's requirements on this machine, if one can run here."""
    if sys.platform != "linux":
        yield Check(
            name="controller here", status=Status.NOTE, detail="a controller needs Linux; the client works here"
        )
        return
    try:
        controller = find_controller(state_dir)
    except CommandError as error:
        yield Check(name="controller here", status=Status.PROBLEM, detail=str(error))
        return
    if missing(CONTROLLER):
        return
    if controller is None:
        yield Check(
            name="controller here",
            status=Status.NOTE,
            detail=f"none runs on {state_dir}",
            fix=f"`fal up -d{option_of(state_dir)}` starts one; --state-dir looks at another place.",
        )
        yield _check_port()
    elif controller.version != VERSION:
        option = controller.option
        yield Check(
            name="controller here",
            status=Status.NOTE,
            detail=f"{controller.version} runs on {state_dir}, and this command is {VERSION}",
            fix=f"`fal down --keep-runners{option}` and `fal up -d{option}` start the new version.",
        )
    elif controller.standby:
        detail = f"{VERSION}, pid {controller.pid}, waits for its database, which {controller.standby} has"
        yield Check(name="controller here", status=Status.OK, detail=detail)
    else:
        yield Check(name="controller here", status=Status.OK, detail=f"{VERSION}, pid {controller.pid}, {state_dir}")
        yield from _check_status(controller)
        yield _check_open_files(controller)
        yield from _check_limits(controller)
    yield _check_uv()
    yield _check_container_engine(state_dir)
    yield _check_isolation(controller)
    yield _check_cgroup()
    yield _check_disk(state_dir)


def _check_status(controller: ControllerProcess) -> Iterator[Check]:
    """Check the lease of the database, Ray, the content and trusted networks."""
    try:
        status = controller.ask("GET", "/status")
    except CommandError as error:
        yield Check(name="lease", status=Status.NOTE, detail=f"not known: {error}")
        return
    if isinstance(lease := status.get("lease"), dict):
        yield _check_lease(lease)
    if isinstance(ray := status.get("ray"), dict):
        yield _check_ray(ray)
    if isinstance(content := status.get("content"), dict):
        yield _check_content(content)
    if isinstance(trusted := status.get("trusted"), dict) and trusted_networks(trusted):
        yield _check_trusted(trusted)


def _check_content(content: Mapping[str, object]) -> Check:
    """Say where code and files are, and whether they can be used."""
    if trouble := content.get("trouble"):
        fix = "Runners go on, and those whose code is on this machine start. Nothing can be deployed or uploaded."
        return Check(name="content", status=Status.PROBLEM, detail=str(trouble), fix=fix)
    return Check(name="content", status=Status.OK, detail=f"code and files are in {content.get('where')}")


def _check_trusted(trusted: Mapping[str, object]) -> Check:
    """Say which nodes requests reach straight, and why not others."""
    detail = f"{', '.join(trusted_networks(trusted))}: {reached_there(trusted)}"
    slower = by_the_door(trusted)
    return Check(
        name="trusted network",
        status=Status.NOTE if slower else Status.OK,
        detail=detail,
        fix="; ".join(f"{name}: {trouble}" for name, trouble in slower.items()),
    )


def _check_ray(ray: Mapping[str, object]) -> Check:
    """Say whether Ray answers, and whether it is closed to others. Also say what its machines lack."""
    if ray.get("trouble"):
        fix = "Runners go on, and none starts. `ray status` on this machine says what is wrong."
    elif not ray.get("authenticated"):
        fix = "Start every part of Ray, and this controller, with RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN."
    elif not any(machine.get("node") for machine in ray_machines(ray)):
        fix = "No runner starts: start `fal node up` on machines of the cluster, and have them join."
    elif ray_unlabelled(ray):
        fix = "Name it to Ray on each: `ray start --labels ray.io/region=us-east`, the same as `fal node up --region`."
    else:
        fix = ""
    return Check(
        name="Ray",
        status=Status.PROBLEM if ray.get("trouble") else Status.NOTE if fix else Status.OK,
        detail=shown_ray(ray),
        fix=fix,
    )


def _check_lease(lease: Mapping[str, object]) -> Check:
    """Say whether the lease of the database is held. Also say which other controllers wait for it."""
    waiting = lease.get("waiting")
    others = ", ".join(map(str, waiting)) if isinstance(waiting, list) and waiting else "no other controller"
    return Check(
        name="lease",
        status=Status.OK if lease.get("certain") else Status.PROBLEM,
        detail=f"epoch {lease.get('epoch')} of the database; {others} waits to take over",
        fix=""
        if lease.get("certain")
        else "It is not renewed: see to the database. If another controller waits, requests do, too.",
    )


def _check_limits(controller: ControllerProcess) -> Iterator[Check]:
    """Report what enforces machine types' limits on runners. Also report which GPUs there are."""
    from fal.api import FalError, SyncServerlessClient

    try:
        with SyncServerlessClient(host=f"http://127.0.0.1:{controller.grpc_port}", api_key=controller.key()) as client:
            nodes = client.runners.nodes().nodes
    except (CommandError, FalError) as error:
        yield Check(name="limits", status=Status.NOTE, detail=f"not known: {error}")
        return
    for node in nodes:
        if len(nodes) > 1:
            yield _check_node(node)
        whole = all(node.bounds.values())
        yield Check(
            name="limits",
            status=Status.OK if whole else Status.NOTE,
            detail=shown_bounds(node.bounds),
            fix="" if whole else "As root, or in a unit of `fal up --install`, control groups enforce all of them.",
        )
        yield Check(name="GPUs", status=Status.OK, detail=shown_gpus(node.gpus))


def _check_node(node: NodeInfo) -> Check:
    """Say whether runners can be started on a node. What follows is about it."""
    return Check(
        name=f"node {node.name}",
        status=Status.NOTE if node.trouble else Status.OK,
        detail=node.trouble or "runners can be started on it",
        fix=next((fix for sign, fix in _NODE_FIXES.items() if sign in node.trouble), ""),
    )


def _check_open_files(controller: ControllerProcess) -> Check:
    """Report whether the controller may open enough files."""
    if controller.few_files:
        detail, _, fix = controller.few_files.partition(". ")
        return Check(name="open files", status=Status.NOTE, detail=detail, fix=f"{fix}.")
    return Check(name="open files", status=Status.OK, detail="the controller may open enough")


def _check_port() -> Check:
    """Check whether `fal up` could listen on its usual port."""
    import socket

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", _PORT))
        except OSError as error:
            detail = f"127.0.0.1:{_PORT} cannot be listened on: {error.strerror}"
            return Check(name="port", status=Status.NOTE, detail=detail, fix="`fal up --port 0` takes a free one.")
    return Check(name="port", status=Status.OK, detail=f"127.0.0.1:{_PORT} is free")


def _check_isolation(controller: ControllerProcess | None) -> Check:
    """Report what isolates apps from each other and this machine. The running controller says so, or a trial."""
    import json

    if controller is not None and controller.isolation:
        level, detail, fix = controller.isolation.partition(":")[0], f"runners get {controller.isolation}", ""
    else:
        try:
            found = json.loads(_output([sys.executable, "-P", "-m", "fal_runner.isolation"]))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return Check(name="isolation", status=Status.NOTE, detail=_first_line(error))
        level, detail = str(found["level"]), f"runners would get {found['level']}: {found['meaning']}"
        fix = f"No stronger level works here: {found['why']}. " if found["why"] else ""
    if level == "process":
        return Check(name="isolation", status=Status.OK, detail=detail)
    return Check(name="isolation", status=Status.NOTE, detail=detail, fix=f"{fix}Run only apps that you trust.")


def _check_uv() -> Check:
    try:
        from uv import find_uv_bin

        uv = str(find_uv_bin())
        pythons = _output([uv, "python", "list", "--only-installed", "--offline", "--output-format", "json"])
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Check(
            name="uv",
            status=Status.PROBLEM,
            detail=f"uv cannot be run: {error}",
            fix="pip install 'fal-grpc[controller]'",
        )
    import json

    versions = sorted({str(found["version"]) for found in json.loads(pythons)})
    return Check(name="uv", status=Status.OK, detail=f"Pythons for apps: {', '.join(versions) or 'none installed'}")


def _check_container_engine(state_dir: Path) -> Check:
    """Report how containers run here. A trial finds out, unless a running controller already knows."""
    import json
    import tempfile

    problem = "Apps of the kind 'container' cannot be built here; others can."
    with tempfile.TemporaryDirectory() as nowhere:
        directory = state_dir / "containers" if state_dir.exists() else Path(nowhere)
        try:
            found = json.loads(_output([sys.executable, "-P", "-m", "fal_server.builders", str(directory)]))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return Check(name="containers", status=Status.NOTE, detail=_first_line(error), fix=problem)
    if found["works"]:
        return Check(name="containers", status=Status.OK, detail=found["detail"])
    return Check(name="containers", status=Status.NOTE, detail=found["detail"], fix=f"{found['fix']} {problem}".strip())


def _check_cgroup() -> Check:
    fields = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mount = next((Path(entry[1]) for entry in fields if entry[2] == "cgroup2"), None)
    if mount is None:
        detail = "no cgroup v2 is mounted: processes of runners are found by other means"
        return Check(name="cgroup", status=Status.NOTE, detail=detail)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    if not os.access(mount / own / "cgroup.procs", os.W_OK):
        return Check(
            name="cgroup",
            status=Status.NOTE,
            detail=f"this process may not make groups in {mount / own}",
            fix="Run the controller in a systemd unit with Delegate=yes.",
        )
    return Check(name="cgroup", status=Status.OK, detail=f"v2, writable at {mount / own}")


def _check_disk(state_dir: Path) -> Check:
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    found = os.statvfs(place)
    if found.f_flag & os.ST_RDONLY:
        fix = "`dmesg` says why, if the system did that after an error; `mount -o remount,rw` makes it writable again."
        return Check(name="disk", status=Status.PROBLEM, detail=f"read-only at {place}", fix=fix)
    free = found.f_bavail * found.f_frsize
    detail = f"{free / (1 << 30):.1f} GiB free at {place}"
    if free < _LEAST_FREE_BYTES:
        fix = "Free some: `fal files list` shows the files of apps, --retention-days of `fal up` shortens logs."
        return Check(name="disk", status=Status.PROBLEM, detail=detail, fix=fix)
    return Check(name="disk", status=Status.NOTE if free < _FEW_FREE_BYTES else Status.OK, detail=detail)


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PROGRAM_SECONDS).stdout


def _first_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return str(text).strip().splitlines()[0]
