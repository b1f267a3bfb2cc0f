"""The process of a node: `fal node up`. It runs runners of a controller on another machine."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from fal_runner.isolation.levels import Isolation
from fal_server.builders import Builders, BuildSandboxes, ContainerBuilder, EngineTrials, VirtualenvBuilder
from fal_server.composition.conflicts import gpu_conflict
from fal_server.composition.execution import build_limits, describe_machine
from fal_server.composition.files import socket_path, socket_variables
from fal_server.composition.isolation import choose_isolation
from fal_server.composition.logging_setup import set_up_logging, write_error
from fal_server.composition.options import add_node_options, gpu_counts, is_unspecified, path_option
from fal_server.composition.state import StateDir
from fal_server.core.faults import FailedPrecondition, Fault, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes
from fal_server.engines.local import LocalHost, RunnerGroups
from fal_server.engines.local.machine import raise_descriptor_limit
from fal_server.engines.local.sandboxes import Sandboxes
from fal_server.engines.local.spawn import Orphans
from fal_server.engines.node.api_socket import ApiSocket
from fal_server.engines.node.entrance import ControlSockets, Entrance
from fal_server.engines.node.fence import Fence
from fal_server.engines.node.identity import NodeIdentity
from fal_server.engines.node.service import Enrolment, HostService, refuse_all, serve
from fal_server.engines.node.shims import LivingShims
from fal_server.store.files.app_files import AppFilesOfAccounts, DiskAppFiles
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.files.durable import write_draft

log = logging.getLogger("fal_server")
_STOP_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None, *, fail: Callable[[str], None] = write_error) -> int:
    """Run a node until a signal stops it; its runners go on.

    Args:
        arguments: the command line; None takes the process's own.
        fail: shows why it ends.

    Returns:
        0 after an orderly stop, 2 if options contradict each other, 3 if the directory is in use, 1 if it could not
        start.
    """
    parser = argparse.ArgumentParser(prog="fal node up", description="Run runners of a controller elsewhere.")
    parser.add_argument("--state-dir", type=path_option, required=True, help="where the node keeps its data")
    add_node_options(parser)
    options = parser.parse_args(arguments)
    if wrong := gpu_conflict(options.gpu):
        fail(wrong)
        return 2
    set_up_logging(None, debug=False)
    try:
        raise_descriptor_limit()
        state = StateDir(options.state_dir)
        with state.held():
            return uvloop.run(_serve(state, options, _say))
    except FailedPrecondition:
        fail(f"another process runs on {options.state_dir}: --node-dir chooses another directory")
        return 3
    except Fault as fault:
        fail(fault.message)
        return 1


async def _serve(state: StateDir, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        node = await RunningNode.open(state, options, stack)
        say(node.greeting)
        await stop.wait()
        log.info("stopping in order; runners go on")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class KeptFiles:
    """The files of apps that a controller sent."""

    def __init__(self, state: StateDir) -> None:
        self._files = AppFilesOfAccounts(lambda account: DiskAppFiles(state.app_files_of(account)), lambda: ())
        self._drafts = state.incoming
        self._drafts.mkdir(mode=0o700, exist_ok=True)

    def has(self, account: AccountId, file_hash: str) -> bool:
        return not self._files.missing(account, [file_hash])

    def keep(self, account: AccountId, file_hash: str, content: bytes, mode: int) -> None:
        self._files.of(account).place(write_draft(self._drafts, content), file_hash, mode)

    def path(self, account: AccountId, file_hash: str) -> Path:
        return self._files.path(account, file_hash)


class RunningNode:
    """A node that listens."""

    def __init__(self, identity: NodeIdentity, host: str, port: int) -> None:
        self._identity = identity
        self._host = host
        self._port = port

    @classmethod
    async def open(cls, state: StateDir, options: argparse.Namespace, stack: AsyncExitStack) -> RunningNode:
        """Start everything; the stack stops it.

        Raises:
            Unavailable: the address cannot be listened on, or the directory cannot be used.
        """
        identity = NodeIdentity(state.root / "node", lambda: datetime.now(UTC))
        if options.new_token:
            identity.leave()
        isolation = await choose_isolation(options.isolation, None)
        sockets = ControlSockets(
            control=socket_path(state.root / "control.sock"),
            joining=socket_path(state.root / "joining.sock"),
            refusing=socket_path(state.root / "refusing.sock"),
        )
        fence = Fence(state.root / "node" / "epoch.json")
        host = _host(state, options, identity.name, isolation.level, sockets.control)
        stack.push_async_callback(host.close)
        shims = LivingShims(state.runners)
        stack.push_async_callback(shims.close)
        shims.find()
        api_socket = _api_socket(state)
        stack.callback(api_socket.close)
        bound = _bind(options.host, options.port)
        entrance = Entrance(bound, lambda: identity.joined, sockets, fence, state.runners)
        stack.callback(entrance.close)
        context = identity.context()

        async def joined() -> None:
            nonlocal context
            context = identity.context()
            fence.forget()
            await entrance.open(context)
            log.info("a controller took this machine as node %s", identity.name)

        service = HostService(
            host,
            shims,
            identity=identity,
            blobs=FileBlobs(state.blobs),
            files=KeptFiles(state),
            runners_dir=state.runners,
            variables=lambda account: {
                "FAL_DATA_DIR": str(_data(state, account)),
                **socket_variables(api_socket.path),
            },
            isolation=isolation.line,
            renewed=lambda: identity.load(context),
            api_socket=api_socket,
        )
        for path in (sockets.control, sockets.joining, sockets.refusing):
            path.unlink(missing_ok=True)
        servers = {
            sockets.control: serve(sockets.control, service),
            sockets.joining: serve(sockets.joining, Enrolment(identity, joined)),
            sockets.refusing: refuse_all(sockets.refusing, fence),
        }
        for path, server in servers.items():
            await server.start()
            path.chmod(0o600)
            stack.push_async_callback(server.stop, _STOP_SECONDS)
        await entrance.open(context)
        return cls(identity, options.host, bound.getsockname()[1])

    @property
    def greeting(self) -> str:
        """What is printed once it listens."""
        address = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        first = f"Node {self._identity.name} listens on {address}."
        if self._identity.joined:
            return f"{first} It has joined a controller."
        which = ""
        if is_unspecified(self._host):
            address = f"ADDRESS:{self._port}"
            which = " (ADDRESS: one of this machine's that the controller's reaches)"
        return (
            f"{first} On the controller's machine, this has it join, and asks for the token, which is good for once"
            f"{which}:\n"
            f"  fal node join {address}\n"
            f"token: {self._identity.token}"
        )


def _host(
    state: StateDir, options: argparse.Namespace, name: str, isolation: Isolation, node_socket: Path
) -> LocalHost:
    groups = RunnerGroups.detect(state.root)
    builds = BuildSandboxes(isolation=isolation, limits=build_limits(), bounds=groups, hidden=[state.root])
    virtualenvs = VirtualenvBuilder(state.environments, state.cache, builds, os.environ)
    trials = EngineTrials(os.environ, state.containers)
    files = KeptFiles(state)
    images = ContainerBuilder(state.environments / "images", files, os.environ, trials, build_limits())
    return LocalHost(
        state.runners,
        node=describe_machine(name, gpu_counts(options.gpu), MachineTypes(), groups.enforced, options.region or ""),
        builder=Builders(virtualenvs, images),
        blobs=FileBlobs(state.blobs),
        files=files,
        sandboxes=Sandboxes(
            isolation=isolation,
            home=state.home,
            data=lambda account: _data(state, account),
            calls=socket_path(state.api_socket).parent,
        ),
        warm_shims=options.warm_shims,
        warm_workers=options.warm_workers,
        orphans=Orphans(seconds=options.orphan_seconds, node_socket=node_socket),
        groups=groups,
    )


def _api_socket(state: StateDir) -> ApiSocket:
    path = socket_path(state.api_socket)
    try:
        return ApiSocket(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be listened on: {error.strerror}") from error


def _data(state: StateDir, account: AccountId) -> Path:
    """The directory that an account's runners see as /data on this machine."""
    directory = state.data_of(account)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise Unavailable(f"{host}:{port} cannot be listened on: {error.strerror}") from error
    bound.setblocking(False)
    return bound
