"""The controller's process: arguments, lock, logging, signals and the readiness report."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import uvloop

from fal_server.composition.conflicts import conflict
from fal_server.composition.controller import EXIT_IN_USE, Controller
from fal_server.composition.files import remove_socket_directory, socket_path
from fal_server.composition.gc_tuning import freeze_startup_objects
from fal_server.composition.hardening import harden
from fal_server.composition.identity import claim_directory
from fal_server.composition.logging_setup import set_up_logging, write_error
from fal_server.composition.machine_types import read_machine_types
from fal_server.composition.options import add_options, gpu_counts, path_option
from fal_server.composition.settings import Settings, TlsSettings
from fal_server.composition.shared_directories import SharedDirectory, check_shared, shared_directory
from fal_server.composition.state import StateDir
from fal_server.core.faults import FailedPrecondition, Fault, Unavailable
from fal_server.core.machines import MachineTypes
from fal_server.engines.local.machine import few_files, raise_descriptor_limit

EXIT_FAILED = 1
EXIT_USAGE = 2
_FOR_ONE_START = ("--adopt-copy", "--new-database", "--new-key")
log = logging.getLogger("fal_server")


def main(arguments: Sequence[str] | None = None, *, fail: Callable[[str], None] = write_error) -> int:
    """Run a controller until a signal stops it.

    SIGTERM, SIGINT and SIGHUP also stop runners, SIGUSR1 leaves them serving. A second signal stops at once. So does
    the end of the process that holds the other end of --while-fd.

    Args:
        arguments: the command line; None takes the process's own.
        fail: shows why it ends.

    Returns:
        0 after an orderly stop, 2 if options contradict each other, 3 if the state directory is in use, 1 if the
        controller could not start.
    """
    options = _parser().parse_args(arguments)
    if wrong := conflict(options, os.environ):
        fail(wrong)
        return EXIT_USAGE
    set_up_logging(options.log_file, debug=options.debug)
    try:
        raise_descriptor_limit()
        if few := few_files():
            log.warning("%s", few)
        state = StateDir(options.state_dir, options.content_dir)
        database = options.database or os.environ.get("FAL_DATABASE_URL") or None
        _check_installed(options)
        with state.held():
            copied = claim_directory(state, adopt_copy=options.adopt_copy)
            settings = Settings(
                host=options.host,
                port=options.port,
                grpc_port=options.grpc_port,
                gpus=gpu_counts(options.gpu),
                machine_types=_machine_types(options.machine_types),
                database=database,
                retention_days=options.retention_days,
                request_history_days=options.request_history_days,
                request_sample=options.request_sample,
                request_payloads=options.request_payloads,
                log_bytes=options.log_bytes,
                trusted_networks=tuple(options.trusted_network),
                allowed_hosts=tuple(options.allowed_host),
                webhook_allow=tuple(options.webhook_allow),
                warm_shims=options.warm_shims,
                warm_workers=options.warm_workers,
                isolation=options.isolation,
                require_isolation=options.require_isolation,
                shared=_shared(options, state),
                file_retention_days=options.file_retention_days,
                unused_retention_days=options.unused_retention_days,
                traces=options.traces,
                mcp_writes=options.mcp_writes,
                engine=options.engine,
                ray_address=options.ray_address,
                engine_grows_seconds=options.engine_grows,
                content=options.content,
                region=options.region or "",
                ray_python=None if options.ray_python is None else str(options.ray_python),
                drain_seconds=options.drain_seconds,
                tls=_tls(options),
                standby=options.standby,
                new_database=options.new_database,
                new_key=options.new_key,
                adopt_runners=not copied,
            )
            start_over = partial(_start_over, sys.argv[1:] if arguments is None else arguments, options.while_fd)
            return uvloop.run(_serve(state, settings, options.ready_fd, options.while_fd, start_over))
    except FailedPrecondition as fault:
        fail(fault.message)
        return EXIT_IN_USE
    except Fault as fault:
        fail(fault.message)
        return EXIT_FAILED
    finally:
        if options.temporary and options.while_fd is not None and _is_closed(options.while_fd):
            shutil.rmtree(options.state_dir, ignore_errors=True)  # its creator cannot do that


def _start_over(arguments: Sequence[str], while_fd: int | None, port: int) -> None:
    """Replace this process by one with the same options and port. The options for one start are left out."""
    kept = [argument for argument in arguments if argument not in _FOR_ONE_START]
    place = next((i for i, argument in enumerate(kept) if argument.startswith("--ready-fd")), None)
    if place is not None:
        del kept[place : place + (1 if "=" in kept[place] else 2)]
    if while_fd is not None:
        os.set_inheritable(while_fd, True)
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, "-m", "fal_server", *kept, "--port", str(port)])  # noqa: S606  # no shell is wanted


async def _serve(
    state: StateDir, settings: Settings, ready_fd: int | None, while_fd: int | None, start_over: Callable[[int], None]
) -> int:
    harden()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop(number: int) -> None:
        if stop.is_set():
            log.warning("%s again: stopping at once", signal.Signals(number).name)
            controller.end_at_once()
        else:
            log.info("%s: stopping in order; once more stops at once", signal.Signals(number).name)
            stop.set()

    controller = Controller(state, settings, start_over)

    runners_end = True

    def on_release() -> None:
        nonlocal runners_end
        if not stop.is_set():
            runners_end = False
            controller.keep_runners()
        on_stop(signal.SIGUSR1)

    # A SIGUSR1 before this line ends the process like SIGKILL, which leaves runners serving, too.
    loop.add_signal_handler(signal.SIGUSR1, on_release)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # as under nohup
        loop.add_signal_handler(number, on_stop, number)

    def on_owner_gone(fd: int) -> None:
        loop.remove_reader(fd)
        log.info("the process that started this one has ended")
        controller.end_at_once()
        stop.set()

    if while_fd is not None:
        # Nobody writes to it, so it becomes readable once nobody holds the other end.
        loop.add_reader(while_fd, on_owner_gone, while_fd)

    waiting = ready_fd

    def ready(announcement: str) -> None:
        """Report once. A controller that waited is ready again when it has taken over."""
        nonlocal waiting
        waiting, to = None, waiting
        _report_ready(to, announcement)
        freeze_startup_objects()

    await controller.run(stop, ready)
    remove_socket_directory(state.owner_socket)
    if runners_end:
        remove_socket_directory(state.api_socket)
    return 0


def _is_closed(fd: int) -> bool:
    """Return whether nobody holds the other end of an unwritten pipe."""
    return bool(select.select([fd], [], [], 0)[0])


def _report_ready(ready_fd: int | None, line: str) -> None:
    """Write one line of JSON for the parent process. It may already be gone."""
    if ready_fd is None:
        return
    with suppress(OSError):
        os.write(ready_fd, line.encode())
        os.close(ready_fd)


def _machine_types(path: Path | None) -> MachineTypes:
    """Return the usual machine types with those of a file.

    Raises:
        InvalidArgument: something in the file is wrong.
    """
    return MachineTypes() if path is None else MachineTypes().with_own(read_machine_types(path))


def _shared(options: argparse.Namespace, state: StateDir) -> tuple[SharedDirectory, ...]:
    """Return the directories that runners see.

    Raises:
        Unavailable: one cannot be shared.
    """
    shared = tuple(map(shared_directory, options.share_directory))
    check_shared(shared, state.root, state.content, socket_path(state.api_socket).parent)
    return shared


def _check_installed(options: argparse.Namespace) -> None:
    """Refuse options for which a program or a package is missing here.

    Raises:
        Unavailable: it is missing.
    """
    if options.content is not None and find_spec("obstore") is None:
        raise Unavailable("--content needs a package that speaks S3: pip install 'fal-grpc[s3]'")
    if options.engine != "ray":
        return
    if options.ray_python is None and find_spec("ray") is None:
        raise Unavailable(
            "--engine ray needs Ray, in the versions of the cluster: pip install 'fal-grpc[ray]', or name the Python "
            "that has it with --ray-python"
        )
    if options.ray_python is not None and shutil.which(str(options.ray_python)) is None:
        raise Unavailable(f"--ray-python {options.ray_python} is no program")


def _tls(options: argparse.Namespace) -> TlsSettings | None:
    """Return the TLS settings; any TLS option enables TLS."""
    if not (options.tls or options.tls_cert or options.tls_name):
        return None
    return TlsSettings(
        certificate=options.tls_cert,
        key=options.tls_key,
        names=tuple(options.tls_name),
        client_authorities=options.tls_client_ca,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fal_server", description="Run a fal controller in the foreground.")
    parser.add_argument("--state-dir", type=path_option, required=True, help="where the controller keeps its data")
    add_options(parser)
    parser.add_argument(
        "--ready-fd", type=int, help="a file descriptor that gets one JSON line when the controller answers"
    )
    parser.add_argument(
        "--while-fd", type=int, help="a file descriptor of a pipe; the controller stops when its other end is closed"
    )
    parser.add_argument(
        "--temporary", action="store_true", help="remove the state directory if the other end of --while-fd was closed"
    )
    parser.add_argument(
        "--log-file", type=path_option, help="log to this file, of bounded size, instead of to standard error"
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    return parser
