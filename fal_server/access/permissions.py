"""Who may do what: the permissions, the presets they come in, and the one that each call needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from fal_server.core.accounts import KeyScope
from fal_server.core.faults import InvalidArgument, PermissionDenied
from fal_server.core.identity import Principal

EVERYTHING = "*"
CALL_APPS = "serverless:apps:run"
WRITE_FILES = "serverless:files:write"

# Every permission there is. A key holds these words, or patterns over them: `*` stands for one part, at the end for
# all that follow, so `serverless:*:read` reads and `serverless:*` does all of it.
PERMISSIONS = frozenset(
    {
        "account:read",
        "billing:read",
        "billing:write",
        "compute:instances:read",
        "compute:instances:write",
        "keys:read",
        "keys:write",
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
    "serverless:revisions:*",
    "serverless:runners:read",
    "serverless:runs:write",
)

# The presets that clients can name. Whoever may deploy or run code can read the secrets that its runners get.
PRESETS: dict[str, tuple[str, ...]] = {
    "FULL": (EVERYTHING,),
    "API": (CALL_APPS,),
    "DEPLOY": (*_DEVELOP, "serverless:runners:write", "serverless:secrets:read"),
    "READONLY": ("account:read", "billing:read", "compute:*:read", "keys:read", "serverless:*:read"),
    "BILLING": ("account:read", "billing:*"),
    "COMPUTE": ("account:read", "compute:*"),
    "SERVERLESS": ("account:read", "serverless:*"),
    "AGENT": (*_DEVELOP, "serverless:runners:exec"),
}

PRESET_OF_SCOPE: dict[KeyScope, str] = {KeyScope.ADMIN: "FULL", KeyScope.API: "API"}


def covers(held: str, wanted: str) -> bool:
    """Whether the pattern `held` permits all that `wanted`, a permission or a pattern, does."""
    have, want = held.split(":"), wanted.split(":")
    for position, part in enumerate(have):
        if position >= len(want):
            return False
        if part == EVERYTHING:
            if position == len(have) - 1:
                return True
            # One part only: a `*` at the end of `wanted` would reach further.
            if want[position] == EVERYTHING and position == len(want) - 1:
                return False
        elif part != want[position]:
            return False
    return len(have) == len(want)


@lru_cache(maxsize=4096)  # asked for every request, of few keys
def _any_covers(held: frozenset[str], wanted: str) -> bool:
    return any(covers(one, wanted) for one in held)


def allows(principal: Principal, permission: str) -> bool:
    """Whether the caller holds a permission."""
    return _any_covers(principal.scope.permissions, permission)


def require(principal: Principal, permission: str) -> None:
    """Refuse a caller who lacks a permission.

    Raises:
        PermissionDenied: naming the permission.
    """
    if not allows(principal, permission):
        # The published client looks for the first two words.
        raise PermissionDenied(
            f"Insufficient permissions: key {principal.key_id} lacks {permission!r}. Use a key that has it, "
            "or ask the holder of an ADMIN key for one"
        )


def preset_permissions(preset: str, field: str = "policy_preset") -> tuple[str, ...]:
    """The permissions of a preset; upper and lower case alike.

    Raises:
        Invalid: there is no such preset.
    """
    permissions = PRESETS.get(preset.upper())
    if permissions is None:
        shown = preset if len(preset) <= 40 else preset[:37] + "..."
        raise InvalidArgument(field, f"{field} {shown!r} is unknown: use one of {', '.join(PRESETS)}")
    return permissions


def checked_permissions(permissions: Iterable[str], field: str = "policy.permissions") -> tuple[str, ...]:
    """Permissions as a user listed them: each known or a pattern over known ones, sorted, without repetition.

    Raises:
        Invalid: none is given, or one means nothing here.
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
    """What of `wanted` is not covered by `held`; empty where nothing exceeds it."""
    have = tuple(held)
    return tuple(permission for permission in wanted if not any(covers(own, permission) for own in have))
