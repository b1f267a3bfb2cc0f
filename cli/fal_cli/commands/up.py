"""`fal up`: starts a controller on this machine. It runs in the foreground or in the background."""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fal.extras import CONTROLLER, missing
from fal_cli.controller_process import ControllerProcess, add_state_dir_option, find_controller
from fal_cli.error_reporting import message_of
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.local_profile import write_profile
from fal_cli.other_package import other_package
from fal_cli.parser import FalParser
from fal_cli.presentation.nodes import shown_bounds, shown_gpus
from fal_cli.presentation.output import print_error, print_line, print_note
from fal_cli.presentation.trusted import trusted_networks

if TYPE_CHECKING:
    from fal.api import NodeInfo

_PORT = 7400
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.25
_LOG_LINES = 15
_TRUST = """\
  authority  {ca}
             the profile trusts it; for other programs (the public authorities stay trusted):
             export SSL_CERT_FILE={bundle} GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={bundle}
"""
_EPILOG = """\
Examples:
  fal up                 in the foreground; Ctrl-C stops it, a second Ctrl-C stops it at once
  fal up -d              in the background; `fal down` stops it
  fal up --port 0        on a free port
  fal up --gpu GPU-H100=2
  fal up --tls           TLS, with a local authority that is created for it
  fal up --database postgresql://db/fal --content-dir /mnt/fal --standby
                         on each of several machines: one serves, the others wait to take over
  fal up --install       as a systemd unit, also at each boot; `fal down --uninstall` removes it"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal up`."""
    from fal_server.composition.options import add_options

    parser.description = "Start a controller on this machine. It listens on loopback unless --host says otherwise."
    parser.epilog = _EPILOG
    add_state_dir_option(parser)
    parser.add_argument(
        "-d", "--detach", action="store_true", help="Return as soon as the controller answers; it runs on."
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="Install a systemd unit that starts it now and at each boot: the user's, or as root the machine's.",
    )
    parser.add_argument("--print", action="store_true", help="With --install: only show the unit and the commands.")
    add_options(parser, port=_PORT)
    parser.set_defaults(handler=_up)


def _up(args: argparse.Namespace) -> int:
    from fal_server.composition.conflicts import conflict
    from fal_server.composition.options import as_arguments

    if sys.platform != "linux":
        raise CommandError("a controller needs Linux; on this system the client works, with a controller elsewhere")
    if args.print and not args.install:
        raise CommandError("--print goes with --install", ExitCode.USAGE)
    if wrong := conflict(args, os.environ):
        raise CommandError(wrong, ExitCode.USAGE)
    state_dir = args.state_dir.absolute()
    if args.print:
        return _print_unit(state_dir, ["--state-dir", str(state_dir), *as_arguments(args)])
    running = find_controller(state_dir)
    if running is not None and args.install:
        raise CommandError(
            f"a controller (pid {running.pid}) runs on {state_dir} already: "
            f"`fal down --keep-runners{running.option}` makes room for the unit"
        )
    if running is not None and args.new_key:
        running.ask("POST", "/new-key")
        print_note(f"Made another administrator's key: {state_dir / 'admin.key'} and the profile have it.")
    if running is not None:
        # Not an error: a user who lost the profile or the key gets them again.
        print_note(f"A controller (pid {running.pid}) is already running on {state_dir}; other options are ignored.")
        _greet(running, f"`fal down{running.option}` stops it, --state-dir chooses another directory.")
        return 0
    arguments = ["--state-dir", str(state_dir), *as_arguments(args)]
    if getattr(args, "debug", False):
        arguments.append("--debug")
    _require_extra()
    if args.install:
        return _installed(state_dir, arguments)
    return _detached(state_dir, arguments) if args.detach else _foreground(state_dir, arguments)


def _print_unit(state_dir: Path, arguments: list[str]) -> int:
    from fal_cli.service import Service

    service = Service.of(state_dir)
    print_note(f"# {service.path}")
    sys.stdout.write(service.text(arguments))
    for command in service.start_commands():
        print_note(f"$ {' '.join(command)}")
    return 0


def _installed(state_dir: Path, arguments: list[str]) -> int:
    """Install the unit, and wait until the controller answers."""
    from fal_cli.service import Service

    service = Service.of(state_dir)
    service.install(arguments)
    end = time.monotonic() + _START_SECONDS
    while (controller := find_controller(state_dir)) is None:
        if time.monotonic() > end:
            raise CommandError(f"the controller does not answer: its log is {state_dir / 'controller.log'}")
        time.sleep(_LOOK_SECONDS)  # systemd starts it, so no pipe reports that it is ready
    _greet(controller, f"`fal down --uninstall{controller.option}` stops it and removes {service.name}.")
    return 0


def _require_extra() -> None:
    lacking = missing(CONTROLLER)
    if lacking:
        raise CommandError(
            f"fal up needs the controller extra ({lacking[0]} is missing): pip install 'fal-grpc[controller]'"
        )


def _foreground(state_dir: Path, arguments: list[str]) -> int:
    """Run the controller in this process. A thread prints the greeting once it answers."""
    from fal_server.composition.main import main as serve

    reader, writer = os.pipe()

    def greet() -> None:
        with os.fdopen(reader) as announcements:
            controller = find_controller(state_dir) if announcements.readline() else None
        if controller is not None:
            _greet(controller, "Ctrl-C stops it.")

    greeter = threading.Thread(target=greet, daemon=True)
    greeter.start()
    # The controller closes its end after writing; if it fails earlier, nobody waits for the greeting.
    return 1 if serve([*arguments, "--ready-fd", str(writer)], fail=print_error) else 0


def _detached(state_dir: Path, arguments: list[str]) -> int:
    """Start the controller in its own session, and wait until it answers."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state_dir / "controller.log"
    print_note("Starting the controller ...")
    with interrupts.deferred():
        process, announcements, start = _spawn(state_dir, arguments, log)
        try:
            with interrupts.interruptible(), announcements:
                ready = says_something(announcements, log, start)
                controller = find_controller(state_dir) if ready and announcements.readline() else None
                if controller is not None:
                    _greet(controller, f"`fal down{controller.option}` stops it.")
        except (KeyboardInterrupt, SystemExit):
            process.terminate()
            process.wait()
            raise
    if controller is None:
        process.terminate()
        code = process.wait()
        with log.open(errors="replace") as lines:
            lines.seek(start if start <= log.stat().st_size else 0)  # the log was rotated
            last = "".join(lines.readlines()[-_LOG_LINES:]).strip()
        if last.startswith("Error: ") and "\n" not in last:
            raise CommandError(f"{last.removeprefix('Error: ')}\nThe log is {log}.")
        raise CommandError(f"the controller did not start (exit code {code}). Its log, {log}, ends with:\n{last}")
    # The controller keeps running; Popen must not warn about it.
    process.returncode = 0
    return 0


def says_something(announcements: TextIO, log: Path, size: int, *, seconds: float = _START_SECONDS) -> bool:
    """Wait for the announcement, or the process's end, while the log grows. Return whether one came.

    Args:
        size: of the log before the start.
        seconds: within which the log has to grow.
    """
    while not select.select([announcements], [], [], seconds)[0]:
        if (grown := log.stat().st_size) == size:
            return False
        size = grown
        print_note(f"The controller is still starting: {log} says what it does.")
    return True


def _spawn(state_dir: Path, arguments: list[str], log: Path) -> tuple[subprocess.Popen[bytes], TextIO, int]:
    """Start the process. Return it, its pipe for "ready", and the start of its lines in the log."""
    reader, writer = os.pipe()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as log_file:
        start = log_file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "fal_server", *arguments, "--ready-fd", str(writer), "--log-file", str(log)],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            cwd=state_dir,
            start_new_session=True,
            pass_fds=(writer,),
        )
    os.close(writer)
    return process, os.fdopen(reader), start


def _greet(controller: ControllerProcess, ending: str) -> None:
    prefix, profile = _profile_of(controller)
    trust = "" if controller.ca_file is None else _TRUST.format(ca=controller.ca_file, bundle=controller.bundle)
    if controller.standby:
        _greet_standby(controller, ending, profile)
        return
    nodes, no_key = _ask(controller)
    status = _status(controller)
    machines = "".join(machine_lines(node, named=len(nodes) > 1) for node in nodes)
    address = controller.url if controller.tls else controller.host
    print_line(
        f"The controller is up (pid {controller.pid}). {ending}\n"
        f"  address    {address} (gRPC and HTTP), 127.0.0.1:{controller.grpc_port} (gRPC alone)\n"
        f"  dashboard  {controller.url}/ui/, for a browser{'' if no_key else '; admin.key has the key'}\n"
        f"  state      {controller.state_dir}\n"
        f"  profile    {profile}\n"
        f"{machines}"
        f"  isolation  {controller.isolation or 'view'}\n"
        f"{_trusted(status)}"
        f"{trust}"
        "Try next:\n"
        f"  {prefix}fal deploy FILE.py::App\n"
        f"  {prefix}fal runners list\n"
        f'  eval "$(fal env{controller.option})"    points every fal client of this shell at it'
    )
    sys.stdout.flush()
    if controller.few_files:
        print_note(f"Note: {controller.few_files}.")
    if isinstance(content := status.get("content"), dict) and content.get("trouble"):
        print_note(f"Warning: {content['trouble']}")
    if (other := other_package()) is not None:
        print_note(f"The package fal {other} is in the same environment, and each breaks the other: see `fal doctor`.")
    if no_key:
        print_note(
            f"There is no key for you: {no_key}\n"
            f"`fal up --new-key{controller.option}` makes one; the controller runs on."
        )


def _profile_of(controller: ControllerProcess) -> tuple[str, str]:
    """Write the profile. Return what goes before a command that uses it, and the profile's line."""
    try:
        profile = write_profile(controller)
    except (OSError, ValueError) as error:  # such as a directory that is read-only, or a damaged file
        print_note(f"Warning: the controller runs, but its profile could not be written: {message_of(error)}")
        return "", f'none; `eval "$(fal env{controller.option})"` points this shell at the controller'
    if profile.current:
        return "", f"{profile.name} (current)"
    return f"FAL_PROFILE={profile.name} ", f"{profile.name}, not current; `fal profile set {profile.name}` selects it"


def machine_lines(node: NodeInfo, *, named: bool) -> str:
    """Return the lines about a machine. Where there are several, each line has the name."""
    name = f"{node.name}: " if named else ""
    gpus = f"  GPUs       {name}{shown_gpus(node.gpus)}\n" if node.gpus else ""
    region = f"  region     {name}{node.region}\n" if node.region else ""
    return f"{region}  limits     {name}{shown_bounds(node.bounds)}\n{gpus}"


def _greet_standby(controller: ControllerProcess, ending: str, profile: str) -> None:
    address = controller.url if controller.tls else controller.host
    print_line(
        f"The controller waits (pid {controller.pid}): {controller.standby} has the database. {ending}\n"
        f"  address    {address} (passes gRPC and HTTP on to the other, and answers itself once it takes over)\n"
        f"  state      {controller.state_dir}\n"
        f"  profile    {profile}"
    )
    sys.stdout.flush()


def _status(controller: ControllerProcess) -> Mapping[str, object]:
    """Return what the controller says of itself, if it answers."""
    try:
        return controller.ask("GET", "/status")
    except CommandError:
        return {}


def _trusted(status: Mapping[str, object]) -> str:
    """Return the line about trusted networks."""
    trusted = status.get("trusted")
    networks = trusted_networks(trusted) if isinstance(trusted, dict) else []
    return f"  trusted    {', '.join(networks)}: requests to nodes there go without TLS\n" if networks else ""


def _ask(controller: ControllerProcess) -> tuple[Sequence[NodeInfo], str]:
    """Return the nodes, and why the stored key does not work. It may have been revoked or lost, for example."""
    from fal.api import FalError, SyncServerlessClient, UnauthenticatedError

    try:
        host = f"http://127.0.0.1:{controller.grpc_port}"
        with SyncServerlessClient(host=host, api_key=controller.key()) as client:
            return client.runners.nodes().nodes, ""
    except (CommandError, UnauthenticatedError) as error:
        return (), str(error)
    except FalError:
        return (), ""
