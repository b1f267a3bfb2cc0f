"""Starts a runner on this machine. It makes its directory, its shim, and its worker's specification."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import fal_runner
from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.mounts import APP_VARIABLE, DATA_VARIABLE
from fal_runner.isolation.sandbox import APP
from fal_runner.process.nvml import LIBRARY_VARIABLE
from fal_runner.process.proc import tag_of
from fal_runner.process.removal import discard_tree
from fal_runner.process.usage import measure_descendants
from fal_runner.shim.address import LOG_NAME, ShimIdentity
from fal_runner.shim.prewarm import MOST_ORDER_BYTES
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE
from fal_server.core.addresses import gate_key_of, metrics_gate_key_of
from fal_server.core.faults import Unavailable
from fal_server.core.identity import AccountId
from fal_server.engines.local.cgroup import RunnerGroup
from fal_server.engines.local.container import container_variables, interpreter, lay_out_container
from fal_server.engines.local.machine import restore_descriptor_limit
from fal_server.engines.local.ownership import sweep
from fal_server.engines.local.prepared import PreparedLaunch
from fal_server.engines.local.sandboxes import Sandboxes, code_paths, lay_out_sandbox
from fal_server.engines.local.warm_pool import WarmKey, WarmShim
from fal_server.engines.shim.runner_door import UnixDoor
from fal_server.ports import ExpectedStart

log = logging.getLogger(__name__)
_LISTEN_SECONDS = 30.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_OUTPUT = 2000
_MIB = 1024 * 1024
_ALWAYS = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
IMPORTS_NAME = "modules.json"
_OURS = {"IS_ISOLATE_AGENT": "1", "FAL_RUNNER_HOST": UnixDoor.host}
_SHARED_BY_ALL = (DATA_VARIABLE, "SSL_CERT_FILE")  # set for a controller's runners; a secret may have the same name


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """When a runner of a node stops by itself.

    Attributes:
        seconds: after so long without a call and without the node process.
        node_socket: what the node process listens on.
    """

    seconds: float
    node_socket: Path


def app_directory(directory: Path) -> Path:
    """Return the worker's working directory. It has the app's files at their relative paths."""
    return directory / APP


def lay_out(directory: Path, launch: PreparedLaunch, sandboxes: Sandboxes, warm_shim: WarmShim | None = None) -> None:
    """Create the runner's directory. It has a copy of the app's files, because the app may write to them.

    Args:
        warm_shim: its shim; the directory of a prewarmed worker becomes that of the app's files.

    Raises:
        Unavailable: a file's path leads out of the directory.
        OSError: the disk cannot be written to.
    """
    work = app_directory(directory)
    make_home(sandboxes, launch.spec.account)
    directory.mkdir(mode=0o700)
    if warm_shim is not None and warm_shim.directory is not None:
        for part in warm_shim.directory.iterdir():
            part.rename(directory / part.name)
    else:
        work.mkdir(mode=0o700)
    for relative_path, content in launch.files:
        target = Path(os.path.normpath(work / relative_path))
        if not target.is_relative_to(work) or target == work:
            raise Unavailable(f"the app's file {relative_path!r} lies outside of the app's directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(content, target)  # with its permissions, so that a script stays executable
    if launch.environment.container is not None:
        lay_out_container(
            directory,
            launch.environment.container,
            launch.spec,
            variables_of(launch, sandboxes.home_of(launch.spec.account)),
        )
    elif sandboxes.isolation is Isolation.PROCESS:
        lay_out_sandbox(directory, launch)


def make_home(sandboxes: Sandboxes, account: AccountId) -> None:
    """Create the directory that an account's runners share as HOME.

    Raises:
        OSError: the disk cannot be written to.
    """
    # Without parents, so that a state directory that was moved away is not created again.
    home = sandboxes.home_of(account)
    if home.parent != sandboxes.home.parent:
        home.parent.mkdir(mode=0o700, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)


async def spawn_shim(
    directory: Path,
    spec: shim_pb2.RunnerSpec,
    group: RunnerGroup,
    make_group: Callable[[], RunnerGroup],
    warm_shim: WarmShim | None = None,
) -> ShimIdentity:
    """Start a shim in its own session and control group. Wait until it listens.

    By then its worker is starting, or failed to; Start returns why.

    Args:
        spec: describes the worker.
        group: the runner's control groups.
        make_group: creates them again after a sweep.
        warm_shim: a shim that is running already; if it has died, another is started.

    Raises:
        Unavailable: it ended, or did not answer in time; the message has its last output.
    """
    if warm_shim is not None:
        if (found := await _assign(warm_shim, directory, spec, group)) is not None:
            return found
        await sweep(tag_of(spec.token), directory)
        group = await asyncio.to_thread(make_group)
    ours, theirs = socket.socketpair()
    with theirs:
        warm_shim = WarmShim(start_process(theirs), ours)
    identity = await _assign(warm_shim, directory, spec, group)
    if identity is None:
        raise Unavailable(f"the shim did not start: {last_output(directory)}")
    return identity


async def _assign(
    warm_shim: WarmShim, directory: Path, spec: shim_pb2.RunnerSpec, group: RunnerGroup
) -> ShimIdentity | None:
    """Assign the runner to a shim, and wait until that listens. If it does not, end it and return None."""
    try:
        # In a thread, because the kernel takes some ten milliseconds to move a process.
        await asyncio.to_thread(lambda: group.admit(warm_shim.pid, measure_descendants(warm_shim.pid).pids))
    except OSError as error:
        if warm_shim.worker is not None:  # without the group it would have no limits
            await warm_shim.end()
            return None
        log.warning("the shim in %s has no control group: its processes are found by their tag: %s", directory, error)
    except BaseException:
        await asyncio.shield(warm_shim.end())
        raise
    order = {"token": spec.token, "directory": str(directory)}
    encoded = base64.b64encode(spec.SerializeToString()).decode()
    warm_shim.send({**order, "spec": encoded} if len(encoded) < MOST_ORDER_BYTES // 2 else order)
    try:
        async with asyncio.timeout(_LISTEN_SECONDS):
            listens = await warm_shim.listens()
    except TimeoutError:
        listens = False
    except BaseException:
        await asyncio.shield(warm_shim.end())
        raise
    identity = ShimIdentity.read(directory)
    if not listens or identity is None or identity.pid != warm_shim.pid:
        await warm_shim.end()
        return None
    warm_shim.release()
    return identity


def last_output(directory: Path) -> str:
    """Return the end of a shim's own log, on one line."""
    try:
        text = (directory / LOG_NAME).read_text(errors="replace")
    except OSError:
        text = ""
    output = " | ".join(text[-_LAST_OUTPUT:].strip().splitlines())
    if output:
        return output
    try:
        full = os.statvfs(directory).f_bavail == 0
    except OSError:
        full = False
    return f"the disk of {directory} is full" if full else "it wrote nothing"


def spec_of(
    directory: Path,
    launch: PreparedLaunch,
    sandboxes: Sandboxes,
    warm_key: WarmKey | None = None,
    group: RunnerGroup | None = None,
    orphans: Orphans | None = None,
) -> shim_pb2.RunnerSpec:
    """Describe the worker to the shim. The variables, secrets among them, are nowhere else.

    Args:
        group: its control groups; None if it has none.
        orphans: when nobody can reach it any more; None if it runs on whatever happens.

    Raises:
        ValueError: a path cannot be in a sandbox.
    """
    sandbox = ""
    if launch.environment.container is None:
        python, devices = launch.environment.python, launch.devices
        sandbox = (
            warm_key.sandbox if warm_key is not None else sandboxes.of(launch.spec.account, python, devices=devices)
        )
    code = code_paths(directory, launch, sandbox)
    work = str(app_directory(directory))
    spec = shim_pb2.RunnerSpec(
        runner_id=launch.spec.runner_id,
        token=launch.spec.token,
        app_name=launch.spec.app_name,
        environment_name=launch.spec.environment,
        revision_id=launch.spec.revision_id,
        python=str(launch.environment.python if launch.environment.container is None else interpreter(directory)),
        working_dir=work,
        files_dir=work,
        env={
            **variables_of(launch, sandboxes.home_of(launch.spec.account)),
            **({APP_VARIABLE: work} if launch.environment.container is None else container_variables(directory)),
        },
        serves_http=launch.spec.serves_http,
        serves_metrics=launch.spec.serves_metrics,
        bind_host=UnixDoor.host,
        network_host=launch.spec.network_host,
        termination_grace_seconds=launch.spec.termination_grace_seconds,
        redact=launch.spec.redact,
        app_port=launch.spec.app_port or 0,
        app_metrics_port=launch.spec.app_metrics_port or 0,
        imports_file=str(warm_key.imports_file) if warm_key is not None else "",
        room=sandbox,
    )
    spec.gpus.extend(launch.spec.gpus)
    if orphans is not None:
        spec.orphan_seconds, spec.node_socket = orphans.seconds, str(orphans.node_socket)
    if launch.environment.container is None:
        spec.gate_key = gate_key_of(launch.spec.token)
        spec.metrics_gate_key = metrics_gate_key_of(launch.spec.token)
        spec.limits.CopyFrom(_limits_of(launch, group or RunnerGroup()))
    else:
        spec.limits.machine_type = launch.spec.limits.machine_type
        spec.limits.larger = launch.spec.limits.larger
        spec.limits.disk_bytes = (launch.spec.limits.disk_mib or 0) * _MIB
        if not launch.environment.container.options.limits:
            spec.limits.memory_bytes = (launch.spec.limits.memory_mib or 0) * _MIB
    if (function := launch.spec.function) is not None:
        spec.function.CopyFrom(shim_pb2.SerializedFile(path=str(code["function"]), method=function.method))
    elif launch.spec.entrypoint is not None:
        spec.entrypoint = launch.spec.entrypoint
    elif launch.environment.container is not None:
        spec.entrypoint = "image:cmd"  # not used, because the image names its program
    if (setup := launch.spec.setup) is not None:
        spec.setup_func.CopyFrom(shim_pb2.SerializedFile(path=str(code["setup"]), method=setup.method))
    return spec


def _limits_of(launch: PreparedLaunch, group: RunnerGroup) -> shim_pb2.ResourceLimits:
    limits = launch.spec.limits
    return shim_pb2.ResourceLimits(
        machine_type=limits.machine_type,
        memory_bytes=(limits.memory_mib or 0) * _MIB,
        disk_bytes=(limits.disk_mib or 0) * _MIB,
        larger=limits.larger,
        groups=map(str, group.entered),
        memory_group=str(group.memory or ""),
        processes=limits.processes,
        processes_group=str(group.processes or ""),
    )


def variables_of(launch: PreparedLaunch, home: Path) -> dict[str, str]:
    """Return the environment of a worker and its children. It has no variable of the controller.

    All runners of an account share one HOME, so that the next runner finds what libraries keep there (models, compiled
    kernels). The files of the controller's user stay out of reach.
    """
    variables = dict(launch.spec.variables)
    if launch.environment.container is not None:
        variables.pop(DATA_VARIABLE, None)  # mounted in the container; the engine itself must see the machine unchanged
        common = {"PATH": _SYSTEM_PATH, **_ALWAYS}  # an image has its own
    else:
        common = _common(launch.environment.python, home)
    return {**common, **variables, **_OURS, "FAL_RUNNER_ID": launch.spec.runner_id}


def _common(python: Path, home: Path) -> dict[str, str]:
    binaries = python.parent
    places = {"HOME": str(home), "VIRTUAL_ENV": str(binaries.parent), "PATH": f"{binaries}:{_SYSTEM_PATH}"}
    return {**places, **_ALWAYS}


def keep_imports(imports: Path) -> None:
    """Create the directory of import lists. Delete the lists of environments that no longer exist."""
    imports.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in imports.iterdir():
        try:
            exists = Path(json.loads((directory / IMPORTS_NAME).read_text())["python"]).exists()
        except (OSError, ValueError, TypeError, KeyError):
            exists = False  # there is none yet, or an earlier version wrote it
        if exists:
            continue
        if directory.is_dir():
            discard_tree(directory)
        else:
            directory.unlink(missing_ok=True)


def warm_key_of(launch: PreparedLaunch, sandboxes: Sandboxes, imports: Path) -> WarmKey | None:
    """Return how to prewarm a worker for the next such runner. None if that is not possible.

    Args:
        imports: the directory of import lists.

    Raises:
        ValueError: a path cannot be in a sandbox.
    """
    if launch.environment.container is not None:
        return None
    # A worker that waits has its sandbox, and CUDA its answer to how many GPUs there are, before they are assigned.
    if launch.spec.gpus or launch.devices:
        return None
    variables = {name: value for name, value in launch.spec.variables.items() if value not in launch.spec.redact}
    return _warm_key(
        launch.spec.account, launch.environment.python, variables, launch.gpu_variables, sandboxes, imports
    )


def expected_warm_key(
    start: ExpectedStart, python: Path, gpu_variables: Mapping[str, str], sandboxes: Sandboxes, imports: Path
) -> WarmKey:
    """Return how to prewarm a worker for an expected runner. Its machine type has no GPU.

    Args:
        python: the environment's interpreter.
        gpu_variables: those that say that it has no GPU.

    Raises:
        ValueError: a path cannot be in a sandbox.
    """
    return _warm_key(start.account, python, start.variables, gpu_variables, sandboxes, imports)


def _warm_key(
    account: AccountId,
    python: Path,
    variables: Mapping[str, str],
    gpu_variables: Mapping[str, str],
    sandboxes: Sandboxes,
    imports: Path,
) -> WarmKey:
    shared = {name: value for name in _SHARED_BY_ALL if (value := variables.get(name))}
    # A prewarmed worker runs code of an account's apps, so it serves that account alone. Each list has its own
    # directory, because a sandbox shows a directory's current content, but a file as it was.
    name = hashlib.sha256(os.fsencode(python) + b"\0" + account.encode()).hexdigest()
    imports_file = imports / name / IMPORTS_NAME
    imports_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return WarmKey(
        python=python,
        env={**_common(python, sandboxes.home_of(account)), **_OURS, **shared, **gpu_variables},
        imports_file=imports_file,
        sandbox=sandboxes.of(account, python, imports_file),
    )


def start_process(handshake: socket.socket) -> int:
    """Start a shim that waits on a socket for directory and token. Return its pid."""
    package_root = Path(fal_runner.__file__).parent.parent
    library = os.environ.get(LIBRARY_VARIABLE)
    environment = {
        "PATH": _SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(package_root),
        **({LIBRARY_VARIABLE: library} if library else {}),
        TAG_VARIABLE: NO_TAG,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fal_runner.shim", "--wait"],
        cwd="/",
        env=environment,
        stdin=handshake.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    restore_descriptor_limit(process.pid)
    process.returncode = 0  # the process must outlive this object; it is reaped by its pid
    return process.pid
