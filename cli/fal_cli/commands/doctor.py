"""`fal doctor`: finds what is wrong with this machine, the settings and the controller, and says what fixes it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.controller_process import add_state_dir_option, find_controller
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.options import add_output_options
from fal_cli.parser import FalParser
from fal_cli.presentation.output import fitted, write_document
from fal_cli.presentation.printable import visible
from fal_cli.presentation.style import paint, wants_colour
from fal_cli.version import VERSION, other_package

if TYPE_CHECKING:
    from fal_grpc.target import Target

# A module of each extra that nothing else installs.
_EXTRAS = {"app": "cloudpickle", "controller": "sqlalchemy"}
_CALL_SECONDS = 10.0
_PROGRAM_SECONDS = 180.0
_LEAST_FREE_BYTES = 1 << 30
_FEW_FREE_BYTES = 10 << 30


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Hold the result of a check.

    Attributes:
        name: what was checked.
        detail: what was found.
        fix: what to do; empty if nothing.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


_MARKS = {Status.OK: ("✓", "green"), Status.NOTE: ("!", "yellow"), Status.PROBLEM: ("✗", "red")}
_PLAIN_MARKS = {Status.OK: "ok", Status.NOTE: "!!", Status.PROBLEM: "NO"}


def add_arguments(parser: FalParser) -> None:
    """Declare `fal doctor`."""
    parser.description = (
        "Check this machine, the settings and the controller, and say what to do. Exits with 1 if there is a problem."
    )
    add_state_dir_option(parser)
    add_output_options(parser)
    parser.set_defaults(handler=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    settings = _settings()
    checks = [*_check_installation(), *_check_settings(settings), *_check_here(args.state_dir)]
    healthy = all(check.status is not Status.PROBLEM for check in checks)
    versions = _versions()
    if args.output == "pretty":
        for check in checks:
            _write(check)
    else:
        found = [
            {"name": check.name, "status": check.status.value, "detail": check.detail, "fix": check.fix}
            for check in checks
        ]
        write_document(args.output, {"healthy": healthy, "checks": found, **versions, **settings})
    return ExitCode.OK if healthy else ExitCode.FAILED


def _write(check: Check) -> None:
    mark, style = _MARKS[check.status]
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        mark = _PLAIN_MARKS[check.status]
    lines = visible(f"{mark} {check.name}: {check.detail}" + (f"\n    {check.fix}" if check.fix else ""))
    text = fitted(lines, sys.stdout).removeprefix(mark)
    sys.stdout.write(f"{paint(mark, style, colour=wants_colour(sys.stdout))}{text}\n")


def _versions() -> dict[str, object]:
    return {
        "fal": VERSION,
        "grpcio": _version_of("grpcio"),
        "protobuf": _version_of("protobuf"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"extra {name}": _has_extra(name) for name in _EXTRAS},
    }


def _has_extra(name: str) -> bool:
    return find_spec(_EXTRAS[name]) is not None


def _version_of(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _check_installation() -> Iterator[Check]:
    extras = ", ".join(name for name in _EXTRAS if _has_extra(name)) or "none"
    detail = f"{VERSION}, Python {platform.python_version()}, grpcio {_version_of('grpcio')}, extras: {extras}"
    yield Check(name="fal", status=Status.OK, detail=detail)
    other = other_package()
    if other is not None:
        yield Check(
            name="other package",
            status=Status.PROBLEM,
            detail=f"the package fal {other} is installed in the same environment, and each overwrites the other",
            fix="Install one of them in an environment of its own: pip uninstall fal fal-grpc, then install one again.",
        )


def _settings() -> Mapping[str, object]:
    """Return host, key id and profile with their sources, and a problem if a setting is malformed."""
    from fal.config import config_path, load
    from fal.settings import find_credentials, find_profile, find_target
    from fal_grpc.credentials import KeyCredentials
    from fal_grpc.errors import FalError, MissingCredentialsError

    found: dict[str, object] = {"config file": str(config_path())}
    try:
        config = load()
        profile, profile_by = find_profile(config, None, os.environ)
        target, target_by = find_target(config, profile, None, os.environ)
    except FalError as error:
        return {**found, "problem": str(error)}
    found |= {
        "profile": profile,
        "profile from": profile_by if profile else None,
        "FAL_HOST": str(target),
        "FAL_HOST from": target_by,
        "plaintext": "yes" if target.plaintext else "no",
        "FAL_KEY": "",
        "FAL_KEY from": None,
    }
    try:
        credentials, credentials_by = find_credentials(config, profile, None, os.environ)
    except MissingCredentialsError:
        return found
    except FalError as error:
        return {**found, "problem": str(error)}
    key_id = credentials.key_id if isinstance(credentials, KeyCredentials) else ""
    return {**found, "FAL_KEY": key_id, "FAL_KEY from": credentials_by}


def _check_settings(settings: Mapping[str, object]) -> Iterator[Check]:
    if "problem" in settings:
        yield Check(name="settings", status=Status.PROBLEM, detail=str(settings["problem"]))
        return
    profile = f"profile {settings['profile']}, " if settings["profile"] else ""
    yield Check(
        name="settings",
        status=Status.OK,
        detail=f"{profile}host {settings['FAL_HOST']} (from {settings['FAL_HOST from']})",
    )
    if settings["FAL_KEY from"] is None:
        yield Check(
            name="key",
            status=Status.PROBLEM,
            detail="there is none",
            fix="`fal up -d` starts a controller and makes a key; `fal profile key` stores the key of another one.",
        )
    else:
        yield from _check_controller(settings)


def _check_controller(settings: Mapping[str, object]) -> Iterator[Check]:
    from fal.api import SyncServerlessClient
    from fal_grpc.errors import FalError, KeyRejectedError, PermissionDeniedError, UnauthenticatedError

    key = Check(
        name="key", status=Status.OK, detail=f"{settings['FAL_KEY'] or 'a token'} (from {settings['FAL_KEY from']})"
    )
    with SyncServerlessClient() as client:
        target = client.settings.target
        refused = _cannot_connect(target)
        if refused is not None:
            here = target.is_loopback
            fix = "`fal up -d` starts a controller here." if here else "Check the host, the network and the proxy."
            yield Check(name="controller", status=Status.PROBLEM, detail=f"{target}: {refused}", fix=fix)
            yield key
            return
        start = time.monotonic()
        try:
            client.apps.list()
        except PermissionDeniedError:
            pass  # the key is valid, but not for this
        except (KeyRejectedError, UnauthenticatedError) as error:
            yield Check(name="controller", status=Status.OK, detail=f"{target} answers")
            fix = "`fal profile key` stores another key; on the controller's machine `fal up` makes one."
            yield Check(name="key", status=Status.PROBLEM, detail=str(error), fix=fix)
            return
        except FalError as error:
            yield Check(name="controller", status=Status.PROBLEM, detail=str(error))
            yield key
            return
    milliseconds = (time.monotonic() - start) * 1000
    yield Check(name="controller", status=Status.OK, detail=f"{target} answers in {milliseconds:.0f} ms")
    yield key


def _cannot_connect(target: Target) -> str | None:
    """Return why no connection can be made; gRPC would try for long and say less."""
    import socket

    try:
        socket.create_connection((target.host, target.port), _CALL_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _check_here(state_dir: Path) -> Iterator[Check]:
    """Check what a controller on this machine needs, if one can run here."""
    try:
        controller = find_controller(state_dir)
    except CommandError as error:
        yield Check(name="controller here", status=Status.PROBLEM, detail=str(error))
        return
    if not _has_extra("controller"):
        return
    if controller is None:
        yield Check(name="controller here", status=Status.NOTE, detail=f"none runs on {state_dir}")
    elif controller.version != VERSION:
        yield Check(
            name="controller here",
            status=Status.NOTE,
            detail=f"{controller.version} runs on {state_dir}, and this command is {VERSION}",
            fix="`fal down --keep-runners` and `fal up -d` start the new version.",
        )
    else:
        yield Check(name="controller here", status=Status.OK, detail=f"{VERSION}, pid {controller.pid}, {state_dir}")
    yield _check_uv()
    yield _check_container_engine(state_dir)
    yield _check_cgroup()
    yield _check_disk(state_dir)


def _check_uv() -> Check:
    from uv import find_uv_bin

    try:
        uv = str(find_uv_bin())
        pythons = _output([uv, "python", "list", "--only-installed", "--offline", "--output-format", "json"])
    except (OSError, subprocess.SubprocessError) as error:
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
    """Say how containers run here, which is tried unless a controller on the state directory has found it out."""
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
    free = shutil.disk_usage(place).free
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
