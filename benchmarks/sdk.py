"""Measure `client.runners.list()` beside the raw stub on one channel. There are 10, 1,000 and 10,000 runners."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from concurrent import futures

import grpc

from fal.api import RunnerInfo, SyncServerlessClient
from fal_grpc.channel import ChannelOptions, open_channel
from fal_grpc.credentials import NoCredentials
from fal_grpc.target import parse_target
from fal_grpc.v1 import runner_pb2, runner_pb2_grpc

SIZES = {10: 400, 1_000: 60, 10_000: 15}
"""Numbers of runners, and how often each way of listing them is timed."""

FIELDS = [field.name for field in dataclasses.fields(RunnerInfo)]
TABLE = (
    "alias",
    "machine_type",
    "runner_id",
    "in_flight_requests",
    "expiration_countdown",
    "uptime",
    "revision",
    "state",
)


def answer(size: int) -> bytes:
    """Return a serialized list of a busy platform's runners. Each has one lease in its metadata."""
    response = runner_pb2.ListRunnersResponse()
    for number in range(size):
        runner = response.runners.add(
            runner_id=f"3f0c1c52-7d8e-4d52-9f2e-{number:012}",
            in_flight_requests=number % 4,
            uptime=number + 0.5,
            revision="8a1f2f0e-6f7b-4b30-a9e8-5a4f6f0f6a11",
            alias=f"app-{number % 10}",
            state=number % 10,
            machine_type="GPU-H100",
            environment_name="main",
        )
        lease: dict[str, str | float] = {
            "request_id": f"req-{number}",
            "caller_user_id": "user",
            "leased_at_epoch": 1.5e9,
        }
        runner.external_metadata.update({"leases": [lease], "present_in_group": True})
        runner.created_at.FromSeconds(1_700_000_000 + number)
    return response.SerializeToString()


def serve(answers: dict[int, bytes], size: list[int]) -> tuple[grpc.Server, int]:
    """Answer every list with the same bytes. The server's work is then not measured."""

    def listed(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answers[size[0]]

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(listed)
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
    for service in ("controller.IsolateController", "fal.v1.Runners"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ListRunners": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way. The ways alternate, so that other work affects all alike."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for name in ways:
        ways[name]()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Print milliseconds, and ratios to the raw stub."""
    size = [0]
    server, port = serve({count: answer(count) for count in SIZES}, size)
    host = f"127.0.0.1:{port}"
    channel = open_channel(parse_target(host), NoCredentials(), ChannelOptions())
    stub = runner_pb2_grpc.RunnersStub(channel)
    request = runner_pb2.ListRunnersRequest(list_pending=True)
    print(f"{'runners':>8} {'raw stub ms':>12} {'list() x':>9} {'+ table x':>10} {'+ all fields x':>15}")
    with SyncServerlessClient(host, "id:secret") as client:

        def read(names: tuple[str, ...] | list[str]) -> None:
            for runner in client.runners.list():
                for name in names:
                    getattr(runner, name)

        for count, repeats in SIZES.items():
            size[0] = count
            found = interleaved(
                {
                    "raw": lambda: stub.ListRunners(request),
                    "list": client.runners.list,
                    "table": lambda: read(TABLE),
                    "all": lambda: read(FIELDS),
                },
                repeats,
            )
            ratios = [found[name] / found["raw"] for name in ("list", "table", "all")]
            print(f"{count:>8} {found['raw'] * 1000:>12.2f} {ratios[0]:>9.2f} {ratios[1]:>10.2f} {ratios[2]:>15.2f}")
    channel.close()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
