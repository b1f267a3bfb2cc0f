"""The controller as a process: arguments, the state directory's lock, signals, logging, the word that it is ready."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from fal_server.composition.controller import Controller
from fal_server.composition.gc_tuning import freeze_startup_objects
from fal_server.composition.logging_setup import log_to
from fal_server.composition.options import add_options, is_loopback
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.tls import TlsSettings
from fal_server.core.faults import FailedPrecondition, Fault, InvalidArgument

EXIT_FAILED = 1
EXIT_IN_USE = 3
log = logging.getLogger("fal_server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a controller until SIGTERM or SIGINT, or SIGUSR1, which leaves runners serving; a second one ends it at once.

    Returns:
        0 after an orderly stop, 3 where the state directory is in use, 1 where it could not start.
    """
    options = _parser().parse_args(arguments)
    log_to(options.log_file, debug=options.debug)
    try:
        state = StateDir(options.state_dir)
        with state.held():
            settings = Settings(
                host=options.host,
                port=options.port,
                grpc_port=options.grpc_port,
                gpus=_gpus(options.gpu),
                database=options.database or os.environ.get("FAL_DATABASE_URL") or None,
                retention_days=options.retention_days,
                warm_shims=options.warm_shims,
                warm_workers=options.warm_workers,
                file_retention_days=options.file_retention_days,
                unused_retention_days=options.unused_retention_days,
                drain_seconds=options.drain_seconds,
                tls=_tls(options),
            )
            return uvloop.run(_serve(state, settings, options.ready_fd))
    except FailedPrecondition as fault:
        sys.stderr.write(f"Error: {fault.message}\n")
        return EXIT_IN_USE
    except Fault as fault:
        sys.stderr.write(f"Error: {fault.message}\n")
        return EXIT_FAILED


async def _serve(state: StateDir, settings: Settings, ready_fd: int | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def asked(number: int) -> None:
        if stop.is_set():
            log.warning("%s again: stopping at once", signal.Signals(number).name)
            controller.end_at_once()
        else:
            log.info("%s: stopping in order; once more stops at once", signal.Signals(number).name)
            stop.set()

    controller = Controller(state, settings)

    def asked_to_let_go() -> None:
        if not stop.is_set():
            controller.keep_runners()
        asked(signal.SIGUSR1)

    # One that comes before this line ends the process as SIGKILL would, which leaves runners serving too.
    loop.add_signal_handler(signal.SIGUSR1, asked_to_let_go)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)

    def ready(announcement: str) -> None:
        _report_ready(ready_fd, announcement)
        freeze_startup_objects()

    await controller.run(stop, ready)
    return 0


def _report_ready(ready_fd: int | None, line: str) -> None:
    """One JSON line for whoever started this process; it may have gone away meanwhile."""
    if ready_fd is None:
        return
    with suppress(OSError):
        os.write(ready_fd, line.encode())
        os.close(ready_fd)


def _gpus(given: Sequence[str]) -> dict[str, int]:
    """`GPU-H100=2` -> {"GPU-H100": 2}; simulated where the machine has none: a label with a count."""
    parts = (item.partition("=") for item in given)
    return {label.upper(): int(count) if separator else 1 for label, separator, count in parts}


def _tls(options: argparse.Namespace) -> TlsSettings | None:
    """What the flags say; a flag that is about TLS asks for it.

    Raises:
        Invalid: keys would go over the network in plaintext.
    """
    if not (options.tls or options.tls_cert or options.tls_key or options.tls_name):
        if not is_loopback(options.host):
            raise InvalidArgument(
                "host",
                f"--host {options.host} is reached from other machines, to which keys would go in plaintext: add --tls "
                "(with --tls-name for the name that they use) or --tls-cert and --tls-key",
            )
        return None
    return TlsSettings(certificate=options.tls_cert, key=options.tls_key, names=tuple(options.tls_name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fal_server", description="Run a fal controller in the foreground.")
    parser.add_argument("--state-dir", type=Path, required=True, help="where everything that must last is kept")
    add_options(parser)
    parser.add_argument("--ready-fd", type=int, help="a file descriptor to write one JSON line to, once it answers")
    parser.add_argument("--log-file", type=Path, help="log to this file, of bounded size, in place of standard error")
    parser.add_argument("--debug", action="store_true", help="log more")
    return parser
