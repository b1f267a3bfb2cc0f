"""Starts a runner on this machine: its directory, its shim's process, and the specification of its worker."""

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
from collections.abc import Callable
from pathlib import Path

import fal_runner
from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.mounts import APP_VARIABLE, DATA_VARIABLE
from fal_runner.isolation.sandbox import APP
from fal_runner.process.nvml import LIBRARY_VARIABLE
from fal_runner.process.proc import tag_of
from fal_runner.process.usage import measure_descendants
from fal_runner.shim.address import LOG_NAME, ShimIdentity
from fal_runner.shim.prewarm import MOST_ORDER_BYTES
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE
from fal_server.core.addresses import gate_key_of
from fal_server.core.faults import Unavailable
from fal_server.engines.local.cgroup import RunnerGroup
from fal_server.engines.local.container import container_variables, interpreter, lay_out_container
from fal_server.engines.local.machine import restore_descriptor_limit
from fal_server.engines.local.ownership import sweep
from fal_server.engines.local.prepared import PreparedLaunch
from fal_server.engines.local.sandboxes import Sandboxes, code_paths, lay_out_sandbox
from fal_server.engines.local.warm_pool import WarmKey, WarmShim
from fal_server.engines.shim.runner_door import UnixDoor

log = logging.getLogger(__name__)
_LISTEN_SECONDS = 30.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_OUTPUT = 2000
_ALWAYS = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
IMPORTS_NAME = "modules.json"
_OURS = {"IS_ISOLATE_AGENT": "1", "FAL_RUNNER_HOST": UnixDoor.host}
_SHARED_BY_ALL = (DATA_VARIABLE, "SSL_CERT_FILE")  # among a controller's runners; a secret may have such a name


def app_directory(directory: Path) -> Path:
    """The working directory of the worker, with the app's files at their relative paths."""
    return directory / APP


def lay_out(directory: Path, launch: PreparedLaunch, sandboxes: Sandboxes, warm_shim: WarmShim | None = None) -> None:
    """Make the runner's directory, with a copy of the app's files, to which the app may write.

    Args:
        warm_shim: the shim that it is for; the directory of its worker becomes that of the app's files.

    Raises:
        Unavailable: a file's path leads out of the directory.
        OSError: the disk does not take it.
    """
    work = app_directory(directory)
    # Without their parents: a state directory that was moved away is not made again.
    home = sandboxes.home_of(launch.spec.account)
    if home.parent != sandboxes.home.parent:
        home.parent.mkdir(mode=0o700, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
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
        shutil.copy(content, target)  # with the permissions, so that a script can still be run
    if launch.environment.container is not None:
        lay_out_container(
            directory,
            launch.environment.container,
            launch.spec,
            variables_of(launch, sandboxes.home_of(launch.spec.account)),
        )
    elif sandboxes.isolation is Isolation.PROCESS:
        lay_out_sandbox(directory, launch)


async def spawn_shim(
    directory: Path,
    spec: shim_pb2.RunnerSpec,
    group: RunnerGroup,
    make_group: Callable[[], RunnerGroup],
    warm_shim: WarmShim | None = None,
) -> ShimIdentity:
    """Start a shim in its own session and in its control group; wait until it listens.

    By then its worker is being started, or could not be, for a reason that Start returns.

    Args:
        spec: the runner's worker.
        group: the runner's control groups.
        make_group: makes them again once they were swept.
        warm_shim: a shim that was started already; if it has died, another is started.

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
    """Name the runner to a shim, and wait until it listens; None if it does not, and then it is ended."""
    try:
        # In a thread: the kernel takes some ten milliseconds to move a process, and nobody else should wait for that.
        await asyncio.to_thread(lambda: group.admit(warm_shim.pid, measure_descendants(warm_shim.pid).pids))
    except OSError as error:
        if warm_shim.worker is not None:  # it would have no bounds
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
    """The end of a shim's own log, on one line."""
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
) -> shim_pb2.RunnerSpec:
    """Describe the worker to the shim; only here does it get the variables.

    Args:
        group: its control groups; None if it has none.

    Raises:
        ValueError: a path cannot be in a sandbox.
    """
    sandbox = ""
    if launch.environment.container is None:
        sandbox = (
            warm_key.sandbox if warm_key is not None else sandboxes.of(launch.spec.account, launch.environment.python)
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
        termination_grace_seconds=launch.spec.termination_grace_seconds,
        redact=launch.spec.redact,
        app_port=launch.spec.app_port or 0,
        app_metrics_port=launch.spec.app_metrics_port or 0,
        imports_file=str(warm_key.imports_file) if warm_key is not None else "",
        room=sandbox,
    )
    spec.gpus.extend(launch.spec.gpus)
    if launch.environment.container is None:
        spec.gate_key = gate_key_of(launch.spec.token)
        spec.limits.CopyFrom(_limits_of(launch, group or RunnerGroup()))
    if (function := launch.spec.function) is not None:
        spec.function.CopyFrom(shim_pb2.SerializedFile(path=str(code["function"]), method=function.method))
    elif launch.spec.entrypoint is not None:
        spec.entrypoint = launch.spec.entrypoint
    elif launch.environment.container is not None:
        spec.entrypoint = "image:cmd"  # not used: the image says what it runs
    if (setup := launch.spec.setup) is not None:
        spec.setup_func.CopyFrom(shim_pb2.SerializedFile(path=str(code["setup"]), method=setup.method))
    return spec


def _limits_of(launch: PreparedLaunch, group: RunnerGroup) -> shim_pb2.ResourceLimits:
    limits = launch.spec.limits
    return shim_pb2.ResourceLimits(
        machine_type=limits.machine_type,
        memory_bytes=(limits.memory_mib or 0) * 1024 * 1024,
        disk_bytes=(limits.disk_mib or 0) * 1024 * 1024,
        larger=limits.larger,
        groups=map(str, group.entered),
        memory_group=str(group.memory or ""),
    )


def variables_of(launch: PreparedLaunch, home: Path) -> dict[str, str]:
    """The whole environment of a worker and its children; nothing of the controller's own.

    HOME is one directory for all runners of an account, so that what libraries keep there (models, compiled kernels)
    serves the next runner, while the files of the user who runs the controller stay out of reach.
    """
    variables = dict(launch.spec.variables)
    if launch.environment.container is not None:
        variables.pop(DATA_VARIABLE, None)  # it is mounted, and the engine must see the machine as it is
        common = {"PATH": _SYSTEM_PATH, **_ALWAYS}  # an image has its own
    else:
        common = _common(launch.environment.python, home)
    return {**common, **variables, **_OURS, "FAL_RUNNER_ID": launch.spec.runner_id}


def _common(python: Path, home: Path) -> dict[str, str]:
    binaries = python.parent
    places = {"HOME": str(home), "VIRTUAL_ENV": str(binaries.parent), "PATH": f"{binaries}:{_SYSTEM_PATH}"}
    return {**places, **_ALWAYS}


def keep_imports(imports: Path) -> None:
    """Make the directory of import lists, and delete the lists of environments that are gone."""
    imports.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in imports.iterdir():
        try:
            exists = Path(json.loads((directory / IMPORTS_NAME).read_text())["python"]).exists()
        except (OSError, ValueError, TypeError, KeyError):
            exists = False  # there is none yet, or it is an earlier version's
        if exists:
            continue
        if directory.is_dir():
            shutil.rmtree(directory, ignore_errors=True)
        else:
            directory.unlink(missing_ok=True)


def warm_key_of(launch: PreparedLaunch, sandboxes: Sandboxes, imports: Path) -> WarmKey | None:
    """How to start a worker ahead for the next such runner; None if that is not possible.

    Args:
        imports: the directory of import lists.

    Raises:
        ValueError: a path cannot be in a sandbox.
    """
    if launch.environment.container is not None:
        return None
    spec = launch.spec
    shared = {
        name: value for name in _SHARED_BY_ALL if (value := spec.variables.get(name)) and value not in spec.redact
    }
    # A worker that waits runs what came with an account's apps, so it is that account's alone. A list has a directory
    # of its own: a sandbox has that of its environment, also after the list was replaced.
    name = hashlib.sha256(os.fsencode(launch.environment.python) + b"\0" + spec.account.encode()).hexdigest()
    imports_file = imports / name / IMPORTS_NAME
    imports_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return WarmKey(
        python=launch.environment.python,
        env={**_common(launch.environment.python, sandboxes.home_of(spec.account)), **_OURS, **shared},
        imports_file=imports_file,
        sandbox=sandboxes.of(launch.spec.account, launch.environment.python, imports_file),
    )


def start_process(handshake: socket.socket) -> int:
    """Start a shim that waits on a socket for its directory and token; return its pid."""
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
    process.returncode = 0  # it outlives this object on purpose, and is reaped by its pid
    return process.pid
