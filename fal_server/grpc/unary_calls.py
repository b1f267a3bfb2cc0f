"""Calls unary methods of the contract without gRPC's wire. Admission is the same as over it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from fal_server.core.audit import PEER_PREFIX
from fal_server.core.faults import InvalidArgument
from fal_server.core.json_reader import read_json
from fal_server.grpc.calls import ADMITTED, Method
from fal_server.grpc.interceptor import AccessInterceptor
from fal_server.grpc.methods import METHODS, SERVICES
from fal_server.grpc.openapi import description
from fal_server.grpc.status import DETAILS, trailers
from fal_server.ports.contract import CallFailed, MessageForm

_EVERY = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
UNARY: dict[str, MethodDescriptor] = {
    path: method for path, method in _EVERY.items() if not method.client_streaming and not method.server_streaming
}
"""The unary methods, by path."""


class UnaryCalls:
    """Implements the port ContractCalls.

    Args:
        methods: every method by its path.
    """

    def __init__(self, interceptor: AccessInterceptor, methods: Mapping[str, Method]) -> None:
        self._interceptor = interceptor
        self._methods = methods

    @property
    def paths(self) -> Collection[str]:
        return UNARY.keys()

    @property
    def streaming_paths(self) -> Collection[str]:
        return _EVERY.keys() - UNARY.keys()

    def description(self) -> Mapping[str, object]:
        return description(UNARY)

    async def admit(self, path: str, metadata: Sequence[tuple[str, str]], source: str) -> UnaryCall:
        context = _Context(tuple(metadata), source)

        async def method_of(_: grpc.HandlerCallDetails) -> Method:
            return self._methods[path]

        details = cast("grpc.HandlerCallDetails", _Details(path, tuple(metadata)))
        method = await self._interceptor.intercept_service(method_of, details)
        assert method is not None
        if method.unary_unary is None:  # it answers with a refusal, which is a stream
            await cast("Any", method).stream_stream(None, context)
        return UnaryCall(
            described=METHODS[path], key_id=ADMITTED.get().principal.key_id, method=method, context=context
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryCall:
    """Implements the port AdmittedCall."""

    described: MethodDescriptor
    key_id: str
    method: Method
    context: _Context

    async def answer(self, message: bytes, form: MessageForm) -> bytes:
        serve = cast("Any", self.method).unary_unary
        answer = await serve(_request(self.described, message, form), self.context)
        if form is MessageForm.PROTO:
            return answer if isinstance(answer, bytes) else answer.SerializeToString()
        if isinstance(answer, bytes):
            answer = GetMessageClass(self.described.output_type).FromString(answer)
        return json_format.MessageToJson(answer, indent=None).encode()


def _request(method: MethodDescriptor, message: bytes, form: MessageForm) -> bytes:
    """Return a request in the form that methods take.

    Raises:
        CallFailed: it is not of the method's type.
    """
    if form is MessageForm.PROTO:
        return message  # the method checks it
    kind = GetMessageClass(method.input_type)
    try:
        value = read_json(message)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return json_format.ParseDict(value, kind()).SerializeToString()
    except (ValueError, json_format.ParseError, DecodeError) as error:
        fault = InvalidArgument("request", f"the body is no {kind.DESCRIPTOR.full_name} in JSON: {error}")
        raise _call_failed(
            grpc.StatusCode.INVALID_ARGUMENT, fault.message, dict(trailers(fault, ""))[DETAILS]
        ) from error


def _call_failed(code: grpc.StatusCode, message: str, status: str | bytes) -> CallFailed:
    read = Status.FromString(status) if isinstance(status, bytes) else Status()
    details = [(detail.type_url.rpartition("/")[2], detail.value) for detail in read.details]
    return CallFailed(code.name.lower(), message, details)


@dataclass(frozen=True, slots=True)
class _Details:
    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class _Context:
    """The used part of gRPC's context."""

    def __init__(self, metadata: tuple[tuple[str, str], ...], source: str) -> None:
        self._metadata = metadata
        self._source = source

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return f"unix-abstract:{PEER_PREFIX}{self._source}/"

    async def send_initial_metadata(self, metadata: object) -> None:
        """Do nothing: over HTTP the status comes first."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        raise _call_failed(code, details, dict(trailing_metadata).get(DETAILS, b""))
