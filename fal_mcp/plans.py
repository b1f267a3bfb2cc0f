"""Plans of actions. They are shown first, and carried out once for the holder of the plan's token."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_mcp.calls import Call, Refused

LIFE = timedelta(minutes=5)
MOST_OF_ONE = 50
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The effect of an action.

    Attributes:
        does: a description for people.
        now: the current state, before the action.
        calls: the calls that carry it out, in this order.
    """

    does: str
    now: object
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan that waits for its token.

    Attributes:
        digest: of the token, which is stored nowhere.
        bound_to: its caller, its tool and its arguments.
    """

    digest: bytes
    bound_to: tuple[str, str, str]
    prepared: Prepared
    expires_at: datetime


class Plans:
    """Holds the plans that wait for their tokens.

    Owned: by the process that showed them; a restart drops them.

    A token carries out exactly the plan that was shown, once, before it expires, and only for the same key, tool and
    arguments.

    Args:
        now: returns the current time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._plans: dict[bytes, Plan] = {}

    def make(self, holder: str, tool: str, arguments: Mapping[str, object], prepared: Prepared) -> tuple[str, datetime]:
        """Keep a plan; return its token and expiry. New plans displace the oldest ones."""
        self._forget_expired()
        mine = [plan for plan in self._plans.values() if plan.bound_to[0] == holder]
        for plan in mine[: max(0, len(mine) - MOST_OF_ONE + 1)]:
            del self._plans[plan.digest]
        while len(self._plans) >= MOST:
            del self._plans[next(iter(self._plans))]
        token, expires_at = secrets.token_urlsafe(24), self._now() + LIFE
        digest = _digest(token)
        self._plans[digest] = Plan(
            digest=digest, bound_to=_binding(holder, tool, arguments), prepared=prepared, expires_at=expires_at
        )
        return token, expires_at

    def take(self, token: str, holder: str, tool: str, arguments: Mapping[str, object]) -> Prepared:
        """Return the plan of a token, which is then used up.

        Raises:
            Refused: the token is used up, expired or unknown, or belongs to another key, tool or arguments.
        """
        self._forget_expired()
        plan = self._plans.get(_digest(token))
        if plan is None:
            raise Refused(
                409,
                "the plan_token is used up, expired or unknown, and nothing was done: call without it for a new plan",
            )
        wanted = _binding(holder, tool, arguments)
        if plan.bound_to != wanted:
            named = zip(("another key", "another tool", "other arguments"), plan.bound_to, wanted, strict=True)
            what = next(name for name, had, asked in named if had != asked)
            raise Refused(409, f"the plan_token is for {what}, and nothing was done: call without it for a new plan")
        del self._plans[plan.digest]
        return plan.prepared

    def _forget_expired(self) -> None:
        now = self._now()
        for plan in [plan for plan in self._plans.values() if plan.expires_at <= now]:
            del self._plans[plan.digest]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _binding(holder: str, tool: str, arguments: Mapping[str, object]) -> tuple[str, str, str]:
    return holder, tool, json.dumps(arguments, sort_keys=True)
