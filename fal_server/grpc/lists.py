"""Builds long lists as messages, in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from fal_server.aio.slices import in_slices

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_PART = 100


async def serialized(items: Iterable[T], convert: Callable[[T], M], message: Callable[[list[M]], Message]) -> bytes:
    """Return a message with a repeated field, letting other tasks run meanwhile.

    Concatenated serialized parts of a message are the whole message.

    Args:
        convert: makes an element of the field.
        message: makes a message that contains some of the elements.
    """
    parts: list[bytes] = []
    elements: list[M] = []
    async for item in in_slices(items):
        elements.append(convert(item))
        if len(elements) == _PART:
            parts.append(message(elements).SerializeToString())
            elements = []
    return b"".join((*parts, message(elements).SerializeToString()))
