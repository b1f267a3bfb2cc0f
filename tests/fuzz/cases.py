"""Creates the fuzzer's cases. Each comes from a seed and its number alone, so that it can be repeated."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from fal_server.grpc.methods import SERVICES
from fal_server.http.routes.permissions import ROUTE_PERMISSIONS

METHODS: tuple[MethodDescriptor, ...] = tuple(method for service in SERVICES for method in service.methods)
ROUTES = tuple(ROUTE_PERMISSIONS)
TEXTS = (
    "", "a", "local", "main", "hello", "../..", "/", "%2e%2e", "%00", "\x00", "\ud800", "é", "日" * 50, "x" * 300,
    "a--b", "-", "null", "0", "-1", "1e999", "9" * 40, "*", "@app=x", "{}", "[]", "' OR 1=1", "\x1b[2J", "http://[::1",
    "2026-13-45T99:99:99Z", "Bearer x", "?", "#", "a b",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 10**30)
FLOATS = (0.0, -1.0, 1e308, float("inf"), float("-inf"), float("nan"), 0.5)
HEADERS = (
    "content-length", "transfer-encoding", "connection", "host", "expect", "upgrade", "content-type", "authorization",
    "x-fal-request-timeout", "x-fal-queue-priority", "x-fal-object-lifecycle", "idempotency-key", "range",
    "x-forwarded-for", "accept-encoding", "content-encoding", "origin", "sec-websocket-key", "x-fal-user-id", "te",
)  # fmt: skip
_DEEP = 3


class Door(StrEnum):
    """The target of a case."""

    HTTP = "http"
    REST = "rest"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Attributes:
        data: the bytes of a connection, or of a message.
        method: of gRPC.
        keyed: whether the case uses the controller's key.
    """

    number: int
    door: Door
    data: bytes
    method: MethodDescriptor | None = None
    keyed: bool = True


def case_of(seed: str, number: int, host: str, key: str) -> Case:
    """Return a case.

    Args:
        host: of the controller, for the Host field.
        key: `id:secret`.
    """
    chosen = random.Random(f"{seed}/{number}")
    door, keyed = list(Door)[number % len(Door)], chosen.random() < 0.8
    if door is Door.GRPC:
        method = chosen.choice(METHODS)
        message = _message(chosen, method.input_type, 0)
        data = message.SerializePartialToString()
        if chosen.random() < 0.3:
            data = _damaged(chosen, data)
        return Case(number=number, door=door, data=data, method=method, keyed=keyed)
    data = _request(chosen, host, key if keyed else "")
    if door is Door.HTTP:
        data = _damaged(chosen, data)
    return Case(number=number, door=door, data=data, keyed=keyed)


def _request(chosen: random.Random, host: str, key: str) -> bytes:
    """Return a complete request to a route, with random values."""
    method, path = chosen.choice(ROUTES)
    parts = [_segment(chosen) if part.startswith("{") else part for part in path.split("/")]
    target = "/".join(parts).encode("utf-8", "surrogatepass")
    if chosen.random() < 0.4:
        target += b"?" + "&".join(f"{chosen.choice(TEXTS)}={chosen.choice(TEXTS)}" for _ in range(3)).encode(
            "utf-8", "surrogatepass"
        )
    target = b"".join(b"%%%02X" % byte if byte <= 32 or byte >= 127 else bytes([byte]) for byte in target)
    body = b"" if method in ("GET", "HEAD") and chosen.random() < 0.8 else _body(chosen)
    lines = [f"{method} ".encode() + target + b" HTTP/1.1", b"host: " + host.encode(), b"connection: close"]
    if key:
        lines.append(b"authorization: Key " + key.encode())
    if body:
        lines += [b"content-type: application/json", b"content-length: %d" % len(body)]
    for _ in range(chosen.choice((0, 0, 1, 2))):
        value = chosen.choice(TEXTS).encode("utf-8", "surrogatepass")
        name = chosen.choice([name for name in HEADERS if name not in ("content-length", "transfer-encoding", "host")])
        lines.append(name.encode() + b": " + bytes(byte for byte in value if byte >= 32))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _segment(chosen: random.Random) -> str:
    return chosen.choice([text for text in TEXTS if "/" not in text] + ["hello", "local"] * 5)


def _body(chosen: random.Random) -> bytes:
    roll = chosen.random()
    if roll < 0.1:
        return (b"[" * 3000) + b"]" * 3000
    if roll < 0.2:
        return bytes(chosen.randrange(256) for _ in range(chosen.randrange(200)))
    return json.dumps(_json(chosen, 0)).encode("utf-8", "surrogatepass")


def _json(chosen: random.Random, depth: int) -> object:
    names = (
        "name", "contents", "destination", "hash", "hashes", "mode", "parts", "title", "allowed_apps", "nodes", "app",
        "input", "idempotency_keys", "request_ids", "app_name", "url", "file_url", "cursor", "since",
    )  # fmt: skip
    roll = chosen.random()
    if depth < _DEEP and roll < 0.35:
        return {chosen.choice(names): _json(chosen, depth + 1) for _ in range(chosen.randrange(5))}
    if depth < _DEEP and roll < 0.5:
        return [_json(chosen, depth + 1) for _ in range(chosen.randrange(4))]
    return chosen.choice((None, True, False, *NUMBERS, *FLOATS, *TEXTS))


def _damaged(chosen: random.Random, data: bytes) -> bytes:
    """Change some bytes: flip one, or drop, repeat or insert some."""
    made = bytearray(data)
    for _ in range(chosen.choice((1, 1, 2, 5))):
        place = chosen.randrange(len(made) + 1)
        length = chosen.choice((1, 2, 8, 64))
        match chosen.randrange(6):
            case 0 if place < len(made):
                made[place] ^= 1 << chosen.randrange(8)
            case 1:
                del made[place : place + length]
            case 2:
                made[place:place] = made[place : place + length] * chosen.choice((1, 3, 200))
            case 3:
                made[place:place] = chosen.randbytes(length)
            case 4:
                name, value = chosen.choice(HEADERS), chosen.choice(TEXTS).encode("utf-8", "surrogatepass")
                line = made.find(b"\r\n") + 2
                made[line:line] = name.encode() + b": " + value + b"\r\n"
            case _:
                made[place:place] = chosen.choice((b"\r\n", b"\n", b"\0", b"\r\n\r\n", b":", b"chunked", b"0\r\n\r\n"))
    return bytes(made)


def _message(chosen: random.Random, kind: Descriptor, depth: int) -> Message:
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if chosen.random() < 0.5 or (field.message_type is not None and depth >= _DEEP):
            continue
        _set(chosen, message, field, depth)
    return message


def _set(chosen: random.Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        if value.message_type is None and value.type == FieldDescriptor.TYPE_STRING:
            getattr(message, field.name)[_text(chosen)] = _text(chosen)
        return
    if field.message_type is not None:
        inner = _message(chosen, field.message_type, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).add().CopyFrom(inner)
        else:
            getattr(message, field.name).CopyFrom(inner)
        return
    value = _scalar(chosen, field)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _scalar(chosen: random.Random, field: FieldDescriptor) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = _text(chosen)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return chosen.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chosen.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return chosen.choice((0, 1, 2, 3, 99))
        case FieldDescriptor.CPPTYPE_INT32:
            return chosen.choice([number for number in NUMBERS if -(2**31) <= number < 2**31])
        case FieldDescriptor.CPPTYPE_UINT32:
            return chosen.choice([number for number in NUMBERS if 0 <= number < 2**32])
        case FieldDescriptor.CPPTYPE_INT64:
            return chosen.choice([number for number in NUMBERS if -(2**63) <= number < 2**63])
        case _:
            return chosen.choice([number for number in NUMBERS if 0 <= number < 2**63])


def _text(chosen: random.Random) -> str:
    return chosen.choice([text for text in TEXTS if text.isascii() or text.isprintable()])
