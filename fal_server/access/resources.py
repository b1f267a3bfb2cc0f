"""Permissions for a part of an account: `serverless:apps:run@app=hello` for one app, `@env=prod` for an environment.

A key is for one part or for the whole: all its permissions have the same resource, or none has one.
"""

from __future__ import annotations

from collections.abc import Iterable

from fal_server.access.permissions import covers
from fal_server.core import names
from fal_server.core.faults import InvalidArgument, NotFound, PermissionDenied
from fal_server.core.identity import AccountId, AppId, Principal, Restrictions

_APP, _ENVIRONMENT = "app=", "env="
_AT = "@"
# Permissions for actions on one app or environment; all others are for the whole account.
RESTRICTABLE = frozenset(
    {
        "serverless:apps:read",
        "serverless:apps:run",
        "serverless:apps:write",
        "serverless:logs:read",
        "serverless:queue:read",
        "serverless:queue:write",
        "serverless:requests:read",
        "serverless:revisions:read",
        "serverless:revisions:write",
        "serverless:runners:read",
    }
)


def for_resource(granted: Iterable[str], app: str | None, environment: str) -> tuple[str, ...]:
    """Restrict permissions to this app or environment. Return those that can be restricted.

    Args:
        app: without the environment's suffix; None for all apps of the environment.
        environment: empty means `main` if there is an app.

    Raises:
        InvalidArgument: a name is not valid, or none of the permissions can be restricted.
    """
    held = tuple(granted)
    kept = sorted(name for name in RESTRICTABLE if any(covers(each, name) for each in held))
    if not kept:
        raise InvalidArgument(
            "for_environment" if app is None else "for_app",
            f"none of these permissions is for one app or environment: use some of {', '.join(sorted(RESTRICTABLE))}",
        )
    checked = names.environment_name(environment, "for_environment")
    resource = f"{_ENVIRONMENT}{checked}" if app is None else f"{_APP}{names.app_name(app, checked, 'for_app')}"
    return tuple(f"{name}{_AT}{resource}" for name in kept)


def read(permissions: Iterable[str]) -> tuple[tuple[str, ...], str | None, str | None]:
    """Return permissions without their resource, and the app and environment in it. Both are None without one.

    Raises:
        InvalidArgument: they have different resources, or one is malformed.
    """
    listed = tuple(permissions)
    resources = {permission.partition(_AT)[2] for permission in listed}
    if resources <= {""}:
        return listed, None, None
    resource = resources.pop()
    if resources or not resource.startswith((_APP, _ENVIRONMENT)):
        raise InvalidArgument(
            "policy.permissions",
            "policy.permissions have different resources, or one that is unknown: a key is for one app (@app=NAME), "
            "for one environment (@env=NAME), or for all",
        )
    if resource.startswith(_ENVIRONMENT):
        return bare(listed), None, resource.removeprefix(_ENVIRONMENT)
    name, environment = names.split_app_name(resource.removeprefix(_APP))
    return bare(listed), name, environment


def bare(permissions: Iterable[str]) -> tuple[str, ...]:
    """Return permissions without their resources."""
    return tuple(permission.partition(_AT)[0] for permission in permissions)


def split(permissions: Iterable[str], account: AccountId) -> tuple[frozenset[str], Restrictions]:
    """Return a key's permissions without their resource. Also return the part of the account that it names."""
    held = tuple(permissions)
    without = frozenset(bare(held))
    resources = {permission.partition(_AT)[2] for permission in held} - {""}
    if not resources:
        return without, Restrictions()
    apps = frozenset(AppId.parse(account, each.removeprefix(_APP)) for each in resources if each.startswith(_APP))
    environments = frozenset(each.removeprefix(_ENVIRONMENT) for each in resources if each.startswith(_ENVIRONMENT))
    # A key is created with one resource, which all its permissions have.
    return without, Restrictions(apps=apps or None, environments=environments or None)


def require_whole(caller: Principal) -> None:
    """Refuse a caller whose key is restricted to one app or environment.

    Raises:
        PermissionDenied: the key is restricted.
    """
    if caller.scope.restrictions.limit:
        # The published client looks for the first two words.
        raise PermissionDenied(
            f"Insufficient permissions: key {caller.key_id} is for one app or environment, and this is about the whole "
            "account. Use another key"
        )


def require_in_part(caller: Principal, app: str, environment: str) -> None:
    """Refuse a caller whose key is for another app or environment.

    Args:
        app: with or without the environment's suffix; empty means the environment as a whole.

    Raises:
        PermissionDenied: the key is for one app, and the call for the whole environment.
        NotFound: the key is for another one.
        InvalidArgument: it is not a valid app name.
    """
    limits, account = caller.scope.restrictions, caller.scope.account
    if not app:
        if limits.apps is not None:
            require_whole(caller)
        inside = limits.environments is None or environment in limits.environments
    else:
        inside = caller.scope.reaches(AppId.parse(account, names.app_name(app, environment)))
    if not inside:
        raise NotFound("app or environment", f"key {caller.key_id} is for another one")
