"""Where this program finds its controller, as values that are worked out when they are read.

The sources are those of every command: see docs/reference/configuration.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.config import Config
    from fal_grpc.target import Target

    AUTH_DISABLED: bool
    DEBUG: bool
    DONT_OPEN_LINKS: bool
    FAL_QUEUE_RUN_HOST: str
    FAL_RUN_HOST: str
    FAL_WS_RUN_HOST: str
    GRPC_HOST: str
    REST_HOST: str
    REST_SCHEME: str
    REST_URL: str
    TEST_MODE: bool
    URL_OUTPUT: str
    config: Config
    config_host: str | None

_SWITCHES = {
    "AUTH_DISABLED": "ISOLATE_AUTH_DISABLED",
    "DEBUG": "DEBUG",
    "DONT_OPEN_LINKS": "FAL_DONT_OPEN_LINKS",
    "TEST_MODE": "ISOLATE_TEST_MODE",
}
_CALLS = {"FAL_RUN_HOST": "", "FAL_QUEUE_RUN_HOST": "queue", "FAL_WS_RUN_HOST": "ws"}
_NAMES = frozenset(
    {*_SWITCHES, *_CALLS, "GRPC_HOST", "REST_HOST", "REST_SCHEME", "REST_URL", "URL_OUTPUT", "config", "config_host"}
)


def bool_envvar(name: str) -> bool:
    """Return whether a variable is set to something other than 0, false or nothing."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false")


def __getattr__(name: str) -> object:
    if name in _SWITCHES:
        return bool_envvar(_SWITCHES[name])
    if name == "URL_OUTPUT":
        return os.environ.get("FAL_URL_OUTPUT", "all").strip().lower()
    if name in _CALLS:
        return os.environ.get(name) or _host_of(_CALLS[name])
    if name not in _NAMES:
        raise AttributeError(f"module 'fal.flags' has no attribute {name!r}")
    return _of_settings(name)


def __dir__() -> list[str]:
    return sorted({"bool_envvar", *_NAMES})


def scheme_of_calls() -> str:
    """Return "http" for a controller on this machine, or where the variables say so; else "https"."""
    if bool_envvar("ISOLATE_TEST_MODE") or bool_envvar("ISOLATE_AUTH_DISABLED"):
        return "http"
    return _target().rest_url.partition("://")[0]


def _host_of(kind: str) -> str:
    """Return where apps are called: a host of its own for each way in the cloud, else the controller's."""
    host = _grpc_host()
    if host.startswith("api."):
        base = os.environ.get("FAL_RUN_HOST") or host.removeprefix("api.").replace("alpha.", "", 1).replace(
            ".ai", ".run", 1
        )
        return f"{kind}.{base}" if kind else base
    base = os.environ.get("FAL_RUN_HOST") or host
    return f"{base}/queue" if kind == "queue" else base


def _of_settings(name: str) -> object:
    from fal.config import load

    if name == "config":
        return load()
    if name == "config_host":
        from fal.settings import find_profile

        settings = load()
        profile, _ = find_profile(settings, None, os.environ)
        return None if profile is None else settings.setting(profile, "host")
    if name == "GRPC_HOST":
        return _grpc_host()
    scheme, host = scheme_of_calls(), _grpc_host()
    rest = os.environ.get("FAL_REST_HOST") or (host.replace("api", "rest", 1) if host.startswith("api") else host)
    return {"REST_SCHEME": scheme, "REST_HOST": rest, "REST_URL": f"{scheme}://{rest}"}[name]


def _grpc_host() -> str:
    return _target().authority.removesuffix(":443")


def _target() -> Target:
    from fal.config import load
    from fal.settings import find_profile, find_target

    settings = load()
    profile, _ = find_profile(settings, None, os.environ)
    return find_target(settings, profile, None, os.environ)[0]
