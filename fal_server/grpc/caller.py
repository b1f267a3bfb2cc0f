"""Who is calling: the key in a call's metadata, and what a handler learns of its caller."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fal_server.core.faults import Unauthenticated
from fal_server.core.identity import Principal

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One call, as its handler sees it.

    Attributes:
        request_id: names the call in the logs and in the answer's metadata.
        accept: tells the caller that the stream is open, ahead of its first message. From then on published clients
            do not retry, so it is for after all that may be refused.
    """

    principal: Principal
    request_id: str
    accept: Callable[[], Awaitable[None]]


def request_id(metadata: Mapping[str, str]) -> str:
    """The id that the caller gave to the call, or a new one where it gave none that is fit for a log."""
    given = metadata.get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def credentials(metadata: Mapping[str, str]) -> tuple[str, str]:
    """The key of a call: (id, secret), from `auth-key-id` and `auth-key`, or from `authorization`.

    Raises:
        Unauthenticated: there is none, or half of one.
    """
    key_id, secret = metadata.get("auth-key-id", ""), metadata.get("auth-key", "")
    if not key_id and not secret:
        scheme, _, value = metadata.get("authorization", "").partition(" ")
        if scheme.lower() in ("key", "bearer"):
            key_id, _, secret = value.strip().partition(":")
    if not key_id or not secret:
        raise Unauthenticated("the call has no key: send the metadata auth-key-id and auth-key (set FAL_KEY=id:secret)")
    return key_id, secret
