"""The Protocol of the contract's methods for callers that avoid gRPC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol


class MessageForm(StrEnum):
    """The serialization of a message."""

    JSON = "json"
    PROTO = "proto"


class CallFailed(Exception):
    """A call failed.

    Args:
        code: the gRPC status in lower case, such as `not_found`.
        message: for people.
        details: additional messages, each by its full name and serialized.
    """

    def __init__(self, code: str, message: str, details: Sequence[tuple[str, bytes]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class AdmittedCall(Protocol):
    """A call whose caller is permitted to make it."""

    @property
    def key_id(self) -> str:
        """The id of the caller's key."""
        ...

    async def answer(self, message: bytes, form: MessageForm) -> bytes:
        """Make the call. Return the response in the same form as the message.

        Raises:
            CallFailed: it failed.
        """
        ...


class ContractCalls(Protocol):
    """The unary methods."""

    @property
    def paths(self) -> Collection[str]:
        """Their paths, `/fal.v1.SERVICE/METHOD`."""
        ...

    @property
    def streaming_paths(self) -> Collection[str]:
        """The paths of the methods that only gRPC serves."""
        ...

    async def admit(self, path: str, metadata: Sequence[tuple[str, str]], source: str) -> AdmittedCall:
        """Check the caller, before a byte of the request is read.

        Args:
            path: one of `paths`.
            metadata: the headers of the call, with names in lower case.
            source: the caller's address.

        Raises:
            CallFailed: the caller has no key, or it lacks the method's permission.
        """
        ...

    def description(self) -> Mapping[str, object]:
        """Return the OpenAPI description of the methods."""
        ...
