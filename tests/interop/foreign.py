"""A foreign controller that records requests. It is isolate-proto's service, run by the official interpreter.

Called as `python foreign.py RECORDS`: prints its port, appends one JSON object a request to the file RECORDS.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from isolate_proto import controller_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["IsolateController"]
WRITING = threading.Lock()
URLS = {name: f"http://127.0.0.1/{name}" for name in ("playground", "run", "queue", "ws", "log")}
ALIAS: dict[str, Any] = {"alias": "an-app", "revision": "r", "machine_types": ["XS"], "environment_name": "main"}
SUCCESS: dict[str, Any] = {"status": {"state": "SUCCESS"}}

# The answers that a client needs for its next request.
ANSWERS: dict[str, dict[str, Any]] = {
    "BuildEnvironment": SUCCESS,
    "RegisterApplication": {"result": {"application_id": "a"}, "service_urls": URLS},
    # The result of a function, and of the question that precedes the deploy of an entry point: {"openapi": {}}.
    "Run": {**SUCCESS, "return_value": {"method": "json", "definition": "eyJvcGVuYXBpIjoge319"}},
    "ShellRunner": {"exit_code": 0},
    "SetAlias": {"alias_info": ALIAS},
    "UpdateApplication": {"alias_info": ALIAS},
    "ListAliases": {"aliases": [ALIAS]},
    "CreateUserKey": {"key_id": "k", "key_secret": "s"},
    "CreateEnvironment": {"environment_info": {"name": "stage"}},
    "DeleteAlias": {"revision": "r"},
}


def answer(method: Any) -> Any:
    """Return a message of a method's output type. It has the fields that its client needs."""
    message = pb.DESCRIPTOR.pool.FindMessageTypeByName(method.output_type.full_name)
    reply = getattr(pb, message.name)()
    return json_format.ParseDict(ANSWERS.get(method.name, {}), reply, ignore_unknown_fields=True)


def record(path: str, method: Any, request: Any, context: grpc.ServicerContext) -> None:
    """Record a message with the metadata of its credentials."""
    sent = dict(context.invocation_metadata())
    metadata = {name: value for name, value in sent.items() if name.startswith(("auth", "fal-", "x-"))}
    body = json_format.MessageToDict(request, preserving_proto_field_name=True)
    line = json.dumps({"method": method.name, "request": body, "metadata": metadata})
    with WRITING, Path(path).open("a") as file:
        file.write(line + "\n")


def handler(path: str, method: Any) -> grpc.RpcMethodHandler:
    """Return a handler that records and answers."""

    def unary(request: Any, context: grpc.ServicerContext) -> Any:
        record(path, method, request, context)
        return answer(method)

    def stream(request: Any, context: grpc.ServicerContext) -> Any:
        record(path, method, request, context)
        yield answer(method)

    def both(requests: Any, context: grpc.ServicerContext) -> Any:
        record(path, method, next(requests), context)
        yield answer(method)

    makers: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, stream),
        (True, True): (grpc.stream_stream_rpc_method_handler, both),
    }
    make, behavior = makers[method.client_streaming, method.server_streaming]
    parse = getattr(pb, method.input_type.name).FromString
    return make(behavior, request_deserializer=parse, response_serializer=lambda reply: reply.SerializeToString())


def main() -> None:
    """Serve until the standard input ends."""
    path = sys.argv[1]
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {method.name: handler(path, method) for method in SERVICE.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
