"""Resolves the addresses of direct calls and of the queue, from the environment or the controller's address."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode
from fal_grpc.channel import check_secure
from fal_grpc.credentials import Credentials
from fal_grpc.target import Target, parse_target

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient
    from fal.settings import Settings

_NAMESPACES = ("workflows", "comfy")
_LEGACY = re.compile(r"(\d+)-(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Hold the base addresses, without a slash at the end."""

    run: str
    queue: str

    @property
    def realtime(self) -> str:
        """The address of direct calls, for WebSockets."""
        return "ws" + self.run.removeprefix("http")


def find_hosts(settings: Settings, environ: Mapping[str, str] = os.environ) -> Hosts:
    """Return FAL_RUN_HOST and FAL_QUEUE_RUN_HOST, or the addresses that belong to the controller.

    Each may have a port and a path. A self-hosted controller has its queue at /queue; the fal cloud has a host for it.
    Plaintext is used if the controller is called that way, and for loopback.

    Raises:
        ConfigError: a host is malformed.
        InsecureChannelError: the key would go in plaintext to another machine.
    """
    target = settings.target
    run, queue = environ.get("FAL_RUN_HOST"), environ.get("FAL_QUEUE_RUN_HOST")
    if target.host.startswith("api."):
        cloud = target.host.removeprefix("api.").removeprefix("alpha.")
        cloud = cloud.removesuffix(".ai") + ".run" if cloud.endswith(".ai") else cloud
        own = f"{_scheme(target)}{cloud}" + ("" if target.port == 443 else f":{target.port}")
        own_queue = own.replace("://", "://queue.", 1)
    else:
        own = f"{_scheme(target)}{target.authority}"
        own_queue = f"{own}/queue"
    if run and not queue:
        own_queue = f"{run.rstrip('/')}/queue" if not target.host.startswith("api.") else own_queue
    return Hosts(
        run=_address(run or own, "FAL_RUN_HOST", target, settings.credentials),
        queue=_address(queue or own_queue, "FAL_QUEUE_RUN_HOST", target, settings.credentials),
    )


def split_id(model_id: str, nickname: str | None) -> tuple[str, str]:
    """Split an app's id into the path of a call and the app, whose queue has the requests.

    Args:
        model_id: `owner/app`, with further parts of a path; `app` alone belongs to the caller.
        nickname: the caller's nickname; needed for `app` alone.

    Raises:
        CommandError: the id has another form.
    """
    parts = [part for part in model_id.strip("/").split("/") if part]
    if len(parts) == 1 and (legacy := _LEGACY.fullmatch(parts[0])):
        parts = [legacy[1], legacy[2]]
    elif len(parts) == 1 and nickname is not None:
        parts = [nickname, *parts]
    needed = 3 if parts and parts[0] in _NAMESPACES else 2
    if len(parts) < needed or any(character.isspace() or character in "?#" for character in model_id):
        raise CommandError(f"'{model_id}' is not the id of an app: write OWNER/APP or OWNER/APP/PATH", ExitCode.USAGE)
    return "/".join(parts), "/".join(parts[:needed])


def nickname_of(client: SyncServerlessClient) -> str | None:
    user = client.rest().ask("GET", "/users/current")
    found = user.get("nickname") if isinstance(user, dict) else None
    return found if isinstance(found, str) else None


def _scheme(target: Target) -> str:
    return "http://" if target.plaintext else "https://"


def _address(text: str, source: str, target: Target, credentials: Credentials) -> str:
    scheme, separator, rest = text.strip().rpartition("://")
    authority, slash, path = rest.partition("/")
    found = parse_target(f"{scheme}{separator}{authority}", source=source)
    if not separator and found.is_loopback and target.is_loopback:
        found = parse_target(authority, plaintext=target.plaintext, source=source)
    check_secure(found, credentials)
    usual = found.port == 443 and not found.plaintext
    return f"{_scheme(found)}{found.host if usual else found.authority}{slash}{path}".rstrip("/")
