"""Resolves where this program finds its controller, at each access.

The sources are the same as for every command: see docs/reference/configuration.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.config import Config
    from fal.hosts import Hosts

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
_CALLS = {"FAL_RUN_HOST": "run", "FAL_QUEUE_RUN_HOST": "queue", "FAL_WS_RUN_HOST": "ws"}
_NAMES = frozenset(
    {*_SWITCHES, *_CALLS, "GRPC_HOST", "REST_HOST", "REST_SCHEME", "REST_URL", "URL_OUTPUT", "config", "config_host"}
)


def bool_envvar(name: str) -> bool:
    """Return whether a variable is something other than 0, false or empty."""
    from fal.config import truthy

    return truthy(os.environ, name)


def __getattr__(name: str) -> object:
    if name in _SWITCHES:
        return bool_envvar(_SWITCHES[name])
    if name == "URL_OUTPUT":
        return os.environ.get("FAL_URL_OUTPUT", "all").strip().lower()
    if name not in _NAMES:
        raise AttributeError(f"module 'fal.flags' has no attribute {name!r}")
    return _of_settings(name)


def __dir__() -> list[str]:
    return sorted({"bool_envvar", *_NAMES})


def _of_settings(name: str) -> object:
    from fal.config import load
    from fal.settings import find_profile, find_rest_urls, find_target

    config = load()
    if name == "config":
        return config
    profile, _ = find_profile(config, None, os.environ)
    if name == "config_host":
        return None if profile is None else config.setting(profile, "host")
    target, _ = find_target(config, profile, None, os.environ)
    if name == "GRPC_HOST":
        return target.authority.removesuffix(":443")
    if name in _CALLS:
        return getattr(_hosts(), _CALLS[name]).partition("://")[2]
    _, rest = find_rest_urls(target, os.environ)
    scheme, _, host = rest.partition("://")
    return {"REST_SCHEME": scheme, "REST_HOST": host, "REST_URL": rest}[name]


def _hosts() -> Hosts:
    from fal.hosts import find_hosts
    from fal.settings import resolve

    return find_hosts(resolve(needs_key=False))
