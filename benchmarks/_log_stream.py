"""Serve the baseline of benchmarks/logs.py. It is ready lines over gRPC, and a program that prints them.

`serve` prints its port, and ends when its input closes. `print ADDRESS COUNT PAUSE` prints a stream.
`lines COUNT WIDTH` prints as an app does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent import futures

import grpc

from fal_grpc.v1 import log_pb2

BATCH = 1000


def entry(number: int, message: str) -> log_pb2.LogEntry:
    """Return a line as the controller sends it."""
    found = log_pb2.LogEntry(
        runner_id="3f0c1c52-7d8e-4d52-9f2e-000000000000",
        sequence=number,
        level=log_pb2.INFO,
        source=log_pb2.LogEntry.SOURCE_STDOUT,
        message=message,
        app="bench",
        revision="8a1f2f0e-6f7b-4b30-a9e8-5a4f6f0f6a11",
    )
    found.timestamp.FromNanoseconds(time.time_ns())
    return found


class Lines:
    """Answers FollowLogs by the request's search: "batch COUNT", "single COUNT" or "tick COUNT PAUSE"."""

    def __init__(self) -> None:
        self._ready: dict[tuple[int, int], list[bytes]] = {}

    def prepare(self, count: int, batch: int, width: int) -> list[bytes]:
        """Return serialized batches, created once so that only the stream is measured."""
        if (count, batch) not in self._ready:
            lines = [entry(number, f"{number:0{width}}") for number in range(count)]
            self._ready[count, batch] = [
                log_pb2.FollowLogsResponse(entries=lines[start : start + batch], cursor="c").SerializeToString()
                for start in range(0, count, batch)
            ]
        return self._ready[count, batch]

    def follow(self, request: log_pb2.FollowLogsRequest, _context: grpc.ServicerContext) -> Iterator[bytes]:
        kind, count, *rest = request.selector.search.split()
        if kind == "tick":
            for number in range(int(count)):
                time.sleep(float(rest[0]))  # the interval between the lines whose delay is measured
                batch = log_pb2.FollowLogsResponse(entries=[entry(number, f"tick {time.time_ns()}")], cursor="c")
                yield batch.SerializeToString()
        else:
            yield from self.prepare(int(count), BATCH if kind == "batch" else 1, int(rest[0]))
        yield log_pb2.FollowLogsResponse(runner_ended=log_pb2.RunnerEnded(reason="done")).SerializeToString()


def serve() -> None:
    """Serve until the input closes."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    method: grpc.RpcMethodHandler[log_pb2.FollowLogsRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        Lines().follow, log_pb2.FollowLogsRequest.FromString, None
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("fal.v1.Logs", {"FollowLogs": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


def print_lines(count: str, width: str) -> None:
    """Print as an app in its worker does. Write lines a second to standard error."""
    from fal_runner.worker.request_output import RequestStreams

    RequestStreams().install()
    started = time.perf_counter()
    for number in range(int(count)):
        print(f"{number:0{width}}")
    print(int(count) / (time.perf_counter() - started), file=sys.__stderr__)


def print_ticks(address: str, count: str, pause: str) -> None:
    """Print a stream's messages on arrival, with the plain stub."""
    from fal_grpc.v1 import log_pb2_grpc

    selector = log_pb2.LogSelector(runner_id="r", search=f"tick {count} {pause}")
    with grpc.insecure_channel(address) as channel:
        for batch in log_pb2_grpc.LogsStub(channel).FollowLogs(log_pb2.FollowLogsRequest(selector=selector)):
            for line in batch.entries:
                sys.stdout.write(line.message + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "lines":
        print_lines(*sys.argv[2:])
    else:
        print_ticks(*sys.argv[2:])
