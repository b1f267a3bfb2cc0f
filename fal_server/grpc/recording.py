"""The audit log's data about a call. These are the objects that its request names, and the caller's address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fal_server.core.audit import PEER_PREFIX


def named_things(request: Message, fields: Sequence[str]) -> str:
    """Return the fields of a request as comma-separated `name=value`, without unset ones.

    Args:
        fields: as in the table RECORDED.
    """
    found = ((field.strip("?").removesuffix("[0]"), _text(request, field)) for field in fields)
    return ", ".join(f"{name}={text}" for name, text in found if text)


def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer; empty if unknown."""
    if peer.startswith(f"unix-abstract:{PEER_PREFIX}"):  # through the port shared by gRPC and HTTP
        return peer.removeprefix(f"unix-abstract:{PEER_PREFIX}").rpartition("/")[0]
    kind, _, address = peer.partition(":")
    return unquote(address) if kind in ("ipv4", "ipv6") else ""


def _text(request: Message, field: str) -> str:
    name = field.strip("?").removesuffix("[0]")
    if field.startswith("?"):
        return "set" if request.HasField(name) else "unset"
    value = getattr(request, name)
    if field.endswith("[0]"):
        return str(value[0]) if value else ""
    described = request.DESCRIPTOR.fields_by_name[name]
    if described.type == FieldDescriptor.TYPE_ENUM and described.enum_type is not None:
        known = described.enum_type.values_by_number.get(value)
        return _word(known.name, described.enum_type.name) if known is not None else str(value)
    return str(value) if value else ""


def _word(value: str, enum: str) -> str:
    """Return an enum's value in the command line's form: `viewer` for MEMBER_ROLE_VIEWER of MemberRole."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum).upper()
    return value.removeprefix(f"{prefix}_").lower()
