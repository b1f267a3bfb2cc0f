"""The Protocol of the contract's methods, for callers that do not come over gRPC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol


class MessageForm(StrEnum):
    """How a message is written."""

    JSON = "json"
    PROTO = "proto"


class CallFailed(Exception):
    """A call that failed.

    Args:
        code: the gRPC status in lower case, such as `not_found`.
        message: for people.
        details: messages that say more, each by its full name and serialised.
    """

    def __init__(self, code: str, message: str, details: Sequence[tuple[str, bytes]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class AdmittedCall(Protocol):
    """A call whose caller may make it."""

    @property
    def key_id(self) -> str:
        """The key that the caller showed."""
        ...

    async def answer(self, message: bytes, form: MessageForm) -> bytes:
        """Carry the call out, and return the answer in the form of the message.

        Raises:
            CallFailed: it failed.
        """
        ...


class ContractCalls(Protocol):
    """The methods with one request and one answer."""

    @property
    def paths(self) -> Collection[str]:
        """Their paths, `/fal.v1.SERVICE/METHOD`."""
        ...

    @property
    def streaming_paths(self) -> Collection[str]:
        """The paths of the methods that only gRPC serves."""
        ...

    async def admit(self, path: str, metadata: Sequence[tuple[str, str]], source: str) -> AdmittedCall:
        """Check who calls, before a byte of the request is read.

        Args:
            path: among `paths`.
            metadata: the headers of the call, with names in lower case.
            source: the caller's address.

        Raises:
            CallFailed: the caller has no key, or it lacks the method's permission.
        """
        ...

    def description(self) -> Mapping[str, object]:
        """Return the OpenAPI description of the methods."""
        ...
