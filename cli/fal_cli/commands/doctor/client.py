"""Checks the client: its installation, settings, and the controller they name."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fal.extras import EXTRAS, missing
from fal_cli.commands.doctor.check import Check, Status
from fal_cli.controller_process import default_state_dir
from fal_cli.other_package import other_package
from fal_cli.presentation.counting import counted
from fal_cli.version import VERSION

if TYPE_CHECKING:
    from fal.api import Target
    from fal.settings import Settings

_CALL_SECONDS = 10.0
_CLOCK_SECONDS = 5.0
_FEW_DAYS = 14


def versions() -> dict[str, object]:
    return {
        "fal": VERSION,
        "grpcio": _version_of("grpcio"),
        "protobuf": _version_of("protobuf"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"extra {name}": not missing(modules) for name, modules in EXTRAS.items()},
    }


def _version_of(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_installation() -> Iterator[Check]:
    extras = ", ".join(name for name, modules in EXTRAS.items() if not missing(modules)) or "none"
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


def find_settings() -> Mapping[str, object]:
    """Return host, key id and profile, with their sources. Add the state directory, and a problem if one is wrong."""
    from fal.api import FalError, KeyCredentials, MissingCredentialsError
    from fal.config import config_path, load
    from fal.settings import find_credentials, find_profile, find_target

    found: dict[str, object] = {"config file": str(config_path()), "state directory": str(default_state_dir())}
    try:
        config = load()
        profile, profile_by = find_profile(config, None, os.environ)
        target, target_by = find_target(config, profile, None, os.environ)
    except FalError as error:
        return {**found, "problem": str(error)}
    own = None if profile is None or "FAL_STATE_DIR" in os.environ else config.setting(profile, "state_dir")
    found |= {
        "state directory": own or found["state directory"],
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


def check_settings(settings: Mapping[str, object]) -> Iterator[Check]:
    if "problem" in settings:
        yield Check(name="settings", status=Status.PROBLEM, detail=str(settings["problem"]))
        return
    yield from _check_published_settings()
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


def _check_published_settings() -> Iterator[Check]:
    """Check for settings that prevent importing the published client. An earlier version wrote them."""
    import tomllib

    from fal.config import INTERNAL, config_path

    path = config_path()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return
    name = document.get(INTERNAL, {}).get("profile")
    host = document.get(name, {}).get("host") if isinstance(name, str) else None
    if isinstance(host, str) and not host.startswith("api"):
        yield Check(
            name="published client",
            status=Status.NOTE,
            detail=f"its import fails, since {name}, the current profile in {path}, has the host {host}",
            fix="`fal up` moves the profile local elsewhere; else remove `profile` from [__internal__] in that file.",
        )


def _how_to_start(settings: Settings) -> str:
    """Name the command for the state directory of the profile in use. `fal up` stays in the foreground."""
    start = settings.options.start_command
    return "`fal up -d` starts a controller here." if start == "fal up" else f"`{start}` starts it."


def _check_controller(settings: Mapping[str, object]) -> Iterator[Check]:
    from fal.api import FalError, KeyRejectedError, PermissionDeniedError, SyncServerlessClient, UnauthenticatedError

    key = Check(
        name="key", status=Status.OK, detail=f"{settings['FAL_KEY'] or 'a token'} (from {settings['FAL_KEY from']})"
    )
    with SyncServerlessClient() as client:
        target = client.settings.target
        refused = _cannot_connect(target)
        yield from _check_proxy(target)
        if refused is not None:
            here = target.is_loopback
            fix = _how_to_start(client.settings) if here else "Check the host, the network and the proxy."
            yield Check(name="controller", status=Status.PROBLEM, detail=f"{target}: {refused}", fix=fix)
            yield key
            return
        certificate = None if target.plaintext else _check_client_certificate(client.settings)
        if certificate is not None:
            yield certificate
            if certificate.status is Status.PROBLEM:
                yield key
                return
        start = time.monotonic()
        try:
            client.apps.list()
        except PermissionDeniedError:
            pass  # the key is valid, but lacks this permission
        except (KeyRejectedError, UnauthenticatedError) as error:
            yield Check(name="controller", status=Status.OK, detail=f"{target} answers")
            fix = "`fal profile key` stores another key; on the controller's machine `fal up` makes one."
            yield Check(name="key", status=Status.PROBLEM, detail=str(error), fix=fix)
            return
        except FalError as error:
            yield Check(name="controller", status=Status.PROBLEM, detail=str(error))
            yield key
            return
        found = client.settings
    milliseconds = (time.monotonic() - start) * 1000
    yield Check(name="controller", status=Status.OK, detail=f"{target} answers in {milliseconds:.0f} ms")
    yield key
    yield from _check_answer(found)
    if not target.plaintext:
        yield _check_certificate(found)


def _cannot_connect(target: Target) -> str | None:
    """Return why no connection is possible. An answer of gRPC would take long and say less."""
    import socket

    try:
        socket.create_connection((target.host, target.port), _CALL_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _check_proxy(target: Target) -> Iterator[Check]:
    """Report the proxy for the calls, if one is set."""
    from urllib.parse import urlsplit

    names = ("grpc_proxy", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        return
    proxy = urlsplit(os.environ[name])
    place = f"{proxy.hostname or 'a malformed address'}{f':{proxy.port}' if proxy.hostname and proxy.port else ''}"
    detail = (
        f"{name} is {place}; {'calls to this machine go without it' if target.is_loopback else 'calls go through it'}"
    )
    yield Check(name="proxy", status=Status.OK if proxy.hostname else Status.PROBLEM, detail=detail)


def _check_answer(settings: Settings) -> Iterator[Check]:
    """Compare version and clock with the controller's HTTP side. A foreign one may report neither."""
    from fal.api import FalError
    from fal.http import HttpClient
    from fal.http_messages import HttpRequest

    http = HttpClient(settings.options)
    try:
        answer = http.send(
            HttpRequest(method="GET", url=f"{settings.rest_url}/health", headers={}, timeout_seconds=_CALL_SECONDS)
        )
        version = answer.json()
    except FalError:
        return
    finally:
        http.close()
    now = datetime.now(UTC)
    if isinstance(version, dict) and isinstance(version.get("version"), str):
        same = version["version"] == VERSION
        yield Check(
            name="versions",
            status=Status.OK if same else Status.NOTE,
            detail=f"the controller is {version['version']}, this client {VERSION}",
            fix="" if same else "Install the same version on both sides: pip install --upgrade fal-grpc",
        )
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return
    seconds = (now - theirs).total_seconds()
    off = abs(seconds) > _CLOCK_SECONDS
    yield Check(
        name="clock",
        status=Status.NOTE if off else Status.OK,
        detail=f"this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the controller"
        if off
        else "as the controller's",
        fix="Set both by NTP (`timedatectl set-ntp true`): --since and times that you read are of the controller."
        if off
        else "",
    )


def _check_client_certificate(settings: Settings) -> Check | None:
    """Report whether the controller accepts this client's certificate. None if there is none, and none is required."""
    import socket

    from fal.api import FalError
    from fal.http_messages import tls_context

    target, own = settings.target, settings.options.client_certificate
    answer = b""
    try:
        context = tls_context(settings.options)
        with (
            socket.create_connection((target.host, target.port), _CALL_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=target.host) as connection,
        ):
            connection.sendall(f"GET /health HTTP/1.0\r\nHost: {target.authority}\r\n\r\n".encode())
            while piece := connection.recv(4096):
                answer += piece
    except FalError as error:
        return Check(name="client certificate", status=Status.PROBLEM, detail=str(error))
    except OSError as error:
        if own is None:
            return None  # the call itself reports any other problem
        return _refused_certificate(f"{own} is not taken: {error}")
    head, _, body = answer.partition(b"\r\n\r\n")
    if own is None:
        asked = b" 403 " in head.partition(b"\r\n")[0] and b"client certificate" in body
        return _refused_certificate("there is none, and the controller asks for one") if asked else None
    if not answer:
        return _refused_certificate(f"{own} is not taken: the controller closed the connection")
    return Check(name="client certificate", status=Status.OK, detail=f"{own}")


def _refused_certificate(detail: str) -> Check:
    return Check(
        name="client certificate",
        status=Status.PROBLEM,
        detail=detail,
        fix="FAL_CLIENT_CERT_FILE and FAL_CLIENT_KEY_FILE name one by the authority that the controller trusts.",
    )


def _check_certificate(settings: Settings) -> Check:
    """Report when the controller's certificate expires."""
    import socket
    import ssl

    from fal.http_messages import tls_context

    target = settings.target
    context = tls_context(settings.options)
    try:
        with (
            socket.create_connection((target.host, target.port), _CALL_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=target.host) as connection,
        ):
            certificate = connection.getpeercert() or {}
    except OSError as error:
        return Check(name="certificate", status=Status.PROBLEM, detail=str(error))
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    days = (ends - datetime.now(UTC)).days
    return Check(
        name="certificate",
        status=Status.OK if days >= _FEW_DAYS else Status.NOTE,
        detail=f"of {target.host} ends {ends:%Y-%m-%d}, in {counted(days, 'day')}",
        fix="" if days >= _FEW_DAYS else "Renew it; a controller renews those of its own authority by itself.",
    )
