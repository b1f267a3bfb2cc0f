"""The permissions that a key can have, and their presets."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from fal_server.core.accounts import KeyScope, Role
from fal_server.core.faults import InvalidArgument, NotFound, PermissionDenied
from fal_server.core.identity import LOCAL, AppId, Principal

EVERYTHING = "*"
CALL_APPS = "serverless:apps:run"
WRITE_FILES = "serverless:files:write"
OF_THE_CONTROLLER = "controller:"
"""Prefix of permissions for the whole controller: only its owner can have them, in keys of the first account."""
SEE_ALL_ACCOUNTS = "controller:accounts:read"

NO_PUBLIC_APP = "no public app is at this path: send a key as `Authorization: Key ID:SECRET` if it is private"
"""The message for callers without a key, about a private app and a missing one alike."""

# A key has permissions, or patterns: `*` stands for one part, or at the end for all following parts, so
# `serverless:*:read` may read everything serverless, and `serverless:*` may do everything.
PERMISSIONS = frozenset(
    {
        "account:read",
        "account:write",
        "audit:read",
        "billing:read",
        "billing:write",
        "compute:instances:read",
        "compute:instances:write",
        "controller:accounts:read",
        "controller:accounts:write",
        "drains:read",
        "drains:write",
        "keys:read",
        "keys:write",
        "notices:read",
        "notices:write",
        "serverless:apps:read",
        "serverless:apps:run",
        "serverless:apps:write",
        "serverless:environments:read",
        "serverless:environments:write",
        "serverless:files:read",
        "serverless:files:write",
        "serverless:logs:read",
        "serverless:metrics:read",
        "serverless:queue:read",
        "serverless:queue:write",
        "serverless:requests:read",
        "serverless:revisions:read",
        "serverless:revisions:write",
        "serverless:runners:exec",
        "serverless:runners:read",
        "serverless:runners:write",
        "serverless:runs:write",
        "serverless:secrets:read",
        "serverless:secrets:write",
    }
)

_DEVELOP = (
    "account:read",
    "serverless:apps:*",
    "serverless:environments:read",
    "serverless:files:*",
    "serverless:logs:read",
    "serverless:metrics:read",
    "serverless:queue:read",
    "serverless:requests:read",
    "serverless:revisions:*",
    "serverless:runners:read",
    "serverless:runs:write",
)

# By name, as clients send it. Anyone who may deploy or run code can read the secrets of its runners.
PRESETS: dict[str, tuple[str, ...]] = {
    "FULL": (EVERYTHING,),
    "API": (CALL_APPS,),
    "DEPLOY": (*_DEVELOP, "serverless:runners:write", "serverless:secrets:read"),
    "READONLY": (
        "account:read",
        "billing:read",
        "compute:*:read",
        "drains:read",
        "keys:read",
        "notices:read",
        "serverless:*:read",
    ),
    "BILLING": ("account:read", "billing:*"),
    "COMPUTE": ("account:read", "compute:*"),
    "SERVERLESS": ("account:read", "serverless:*"),
    "AGENT": (*_DEVELOP, "serverless:runners:exec"),
}

# The most that a member may do for a team; its key may have fewer permissions.
ROLE_PERMISSIONS: dict[Role, tuple[str, ...]] = {
    Role.OWNER: (EVERYTHING,),
    Role.ADMIN: ("account:*", "audit:*", "billing:*", "compute:*", "drains:*", "keys:*", "notices:*", "serverless:*"),
    Role.DEVELOPER: ("account:read", "serverless:*"),
    Role.VIEWER: ("account:read", "serverless:*:read"),
}

PRESET_OF_SCOPE: dict[KeyScope, str] = {KeyScope.ADMIN: "FULL", KeyScope.API: "API"}


def covers(held: str, wanted: str) -> bool:
    """Return whether a permission or pattern includes everything that another does."""
    have, want = held.split(":"), wanted.split(":")
    for position, part in enumerate(have):
        if position >= len(want):
            return False
        if part == EVERYTHING:
            if position == len(have) - 1:
                return True
            # This `*` stands for one part, but one at the end of `wanted` for all following parts.
            if want[position] == EVERYTHING and position == len(want) - 1:
                return False
        elif part != want[position]:
            return False
    return len(have) == len(want)


@lru_cache(maxsize=4096)  # called for every request, with few different keys
def _any_covers(held: frozenset[str], wanted: str) -> bool:
    return any(covers(one, wanted) for one in held)


def allows(principal: Principal, permission: str) -> bool:
    """Return whether the caller has a permission."""
    if permission.startswith(OF_THE_CONTROLLER) and principal.scope.account != LOCAL:
        return False
    return _any_covers(principal.scope.permissions, permission)


def require(principal: Principal, permission: str) -> None:
    """Refuse a caller without a permission.

    Raises:
        PermissionDenied: the caller lacks it; the message names it.
    """
    if not allows(principal, permission):
        who = f"key {principal.key_id}"
        hint = "Use a key that has it, or ask the holder of an ADMIN key for one"
        if permission.startswith(OF_THE_CONTROLLER) and principal.scope.account != LOCAL:
            hint = "Only the controller's owner has it, whose key `fal up` made"
        elif principal.role:
            who, hint = f"key {principal.key_id} as {principal.role}", "Ask an owner of the team for another role"
        # The published client looks for the first two words.
        raise PermissionDenied(f"Insufficient permissions: {who} lacks {permission!r}. {hint}")


def require_app(principal: Principal, app_id: AppId) -> None:
    """Refuse a caller who may not call this app.

    Raises:
        PermissionDenied: its key may call no app.
        NotFound: the app is outside the key's scope, for example in another account.
    """
    require(principal, CALL_APPS)
    if not principal.scope.reaches(app_id):
        raise NotFound("app", f"key {principal.key_id} reaches none at this path; `fal apps list` shows which exist")


def preset_permissions(preset: str, field: str = "policy_preset") -> tuple[str, ...]:
    """Return the permissions of a preset. Its name may be in lower case.

    Raises:
        InvalidArgument: there is no such preset.
    """
    permissions = PRESETS.get(preset.upper())
    if permissions is None:
        shown = preset if len(preset) <= 40 else preset[:37] + "..."
        raise InvalidArgument(field, f"{field} {shown!r} is unknown: use one of {', '.join(PRESETS)}")
    return permissions


def checked_permissions(permissions: Iterable[str], field: str = "policy.permissions") -> tuple[str, ...]:
    """Return the permissions that a user listed, sorted and without duplicates.

    Raises:
        InvalidArgument: there is none, or one matches no known permission.
    """
    wanted = sorted(set(permissions))
    if not wanted:
        raise InvalidArgument(field, f"{field} is empty: list at least one permission, such as {CALL_APPS!r}")
    for permission in wanted:
        if not any(covers(permission, known) for known in PERMISSIONS):
            shown = permission if len(permission) <= 80 else permission[:77] + "..."
            raise InvalidArgument(field, f"{field} {shown!r} is unknown: use some of {', '.join(sorted(PERMISSIONS))}")
    return tuple(wanted)


def excess(wanted: Iterable[str], held: Iterable[str]) -> tuple[str, ...]:
    """Return those of `wanted` that `held` does not cover."""
    have = tuple(held)
    return tuple(permission for permission in wanted if not any(covers(own, permission) for own in have))


def common(some: Iterable[str], others: Iterable[str]) -> frozenset[str]:
    """Return the permissions and patterns that both cover."""
    one, two = tuple(some), tuple(others)
    covered = {each for each in one if not excess([each], two)} | {each for each in two if not excess([each], one)}
    return frozenset(covered | {name for name in PERMISSIONS if not excess([name], one) and not excess([name], two)})
