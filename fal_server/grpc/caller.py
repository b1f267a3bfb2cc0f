"""The caller of a call: its key, and the handler's view. The key is in the call's metadata."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from fal_server.access.acting import USER_ID
from fal_server.access.authorization import first_key, token_of
from fal_server.core.faults import Unauthenticated
from fal_server.core.identity import Principal, Scope

REQUEST_ID = "x-request-id"
Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]]"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One call, as its handler sees it.

    Attributes:
        request_id: the call's id in the logs and in the response's metadata.
        accept: tells the caller that the stream is open, before its first message. Published clients do not retry
            after that, so call it when nothing can be refused any more.
    """

    principal: Principal
    request_id: str
    accept: Callable[[], Awaitable[None]]

    @property
    def scope(self) -> Scope:
        """What the caller may reach."""
        return self.principal.scope


def request_id(metadata: Metadata) -> str:
    """Return the caller's id for the call. It is a new one if that is not fit for a log."""
    given = _texts(metadata).get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def credentials(metadata: Metadata) -> tuple[str, str] | str:
    """Return the key of a call, (id, secret), or its login token.

    A key is in `auth-key-id` and `auth-key`, or in `authorization`; a token is in `authorization`.

    Raises:
        Unauthenticated: there is neither, or half of a key.
    """
    texts = _texts(metadata)
    key_id, secret = texts.get("auth-key-id", ""), texts.get("auth-key", "")
    if not key_id and not secret:
        lines = [value for name, value in metadata if name.lower() == "authorization" and isinstance(value, str)]
        key = first_key(lines)
        if key is None and (token := next(filter(None, map(token_of, lines)), "")):
            return token
        key_id, secret = key or ("", "")
    if not key_id or not secret:
        raise Unauthenticated(
            "the call has no key: send `Authorization: Key ID:SECRET`, or auth-key-id and auth-key, in its metadata "
            "(set FAL_KEY=id:secret)"
        )
    return key_id, secret


def acts_for(metadata: Metadata) -> str:
    """Return the user id of the account that a call acts for. Empty if it names none."""
    return _texts(metadata).get(USER_ID, "")


def _texts(metadata: Metadata) -> dict[str, str]:
    return {name.lower(): value for name, value in metadata if isinstance(value, str)}
