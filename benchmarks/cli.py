"""Measure `fal` commands as whole processes. The baselines are an idle interpreter and a raw stub."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc

from fal_grpc.compat import ISOLATE_SERVICE
from fal_grpc.v1.runner_pb2 import ListRunnersResponse, RunnerInfo

_FAL = Path(sys.executable).with_name("fal")
_ROUNDS = 9
_RAW = (
    "import sys, grpc; from fal_grpc.v1 import runner_pb2 as m, runner_pb2_grpc as s;"
    "c = grpc.insecure_channel(sys.argv[1], options=[('grpc.max_receive_message_length', -1)]);"
    "print(len(s.RunnersStub(c).ListRunners(m.ListRunnersRequest(list_pending=True)).runners))"
)


def _answer(count: int) -> bytes:
    runners = [
        RunnerInfo(
            runner_id=f"00000000-0000-4000-8000-{number:012d}",
            alias=f"app-{number % 50}",
            machine_type="GPU-H100",
            revision=f"10000000-0000-4000-8000-{number % 100:012d}",
            state=RunnerInfo.IDLE,
            uptime=number,
        )
        for number in range(count)
    ]
    return ListRunnersResponse(runners=runners).SerializeToString()


@contextmanager
def _serving(count: int) -> Generator[str]:
    """Serve a controller with this many runners, whose answer is ready."""
    answer = _answer(count)

    def answered(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return answer

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        answered, request_deserializer=None, response_serializer=None
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    for service in ("fal.v1.Runners", ISOLATE_SERVICE):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ListRunners": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _measure(commands: dict[str, list[str]], environment: dict[str, str]) -> dict[str, float]:
    """Return each median. Commands alternate, so that other work on the machine affects all alike."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(_ROUNDS + 1):
        for name, command in commands.items():
            seconds = _seconds(command, environment)
            if number:  # the first round fills the file cache
                taken[name].append(seconds)
    return {name: statistics.median(all_seconds) for name, all_seconds in taken.items()}


def main() -> None:
    """Measure and print a table."""
    # Users have compiled files, so let Python write them.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "FAL_KEY": "bench:secret", "FAL_CONFIG_PATH": os.devnull}
    fal = str(_FAL)
    targets = {"--version": 0.04, "--help": 0.06}
    found = _measure(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "fal --version": [fal, "--version"],
            "fal --help": [fal, "--help"],
        },
        environment,
    )
    floor = found["python -c pass"]
    print(f"{'':34}{'seconds':>9}{'of python':>11}{'of raw stub':>13}{'to beat':>9}")
    for name, seconds in found.items():
        target = targets.get(name.removeprefix("fal "))
        print(f"{name:34}{seconds:9.3f}{seconds / floor:11.1f}{'':13}{target or '':>9}")
    json_targets = {10: 0.16, 1_000: None, 10_000: 0.25}
    for count, json_target in json_targets.items():
        with _serving(count) as host:
            rows = {
                f"raw stub, {count:,} runners": [sys.executable, "-c", _RAW, host],
                f"fal runners list --json, {count:,}": [fal, "runners", "list", "--json", "--host", host],
                f"fal runners list, {count:,}": [fal, "runners", "list", "--host", host],
            }
            found = _measure(rows, environment)
        raw = next(iter(found.values()))
        for name, seconds in found.items():
            target = json_target if "--json" in name else 1.0 if count == 10_000 and name.startswith("fal") else None
            print(f"{name:34}{seconds:9.3f}{seconds / floor:11.1f}{seconds / raw:13.2f}{target or '':>9}")


if __name__ == "__main__":
    main()
