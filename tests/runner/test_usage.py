"""The resource usage of a runner's processes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

from fal_runner.process.gpus import GpuMeter
from fal_runner.process.usage import measure_descendants
from tests.support.nvml import FakeNvml

# A child that uses CPU time in a grandchild, holds 50 MiB, and then reports it.
BURN = "import time\nwhile time.process_time() < 0.3: pass"
CHILD = f"""
import subprocess, sys
held = bytearray(50 << 20)
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
print("burnt", flush=True)
sys.stdin.read()
"""


def test_processor_time_outlives_its_process_and_memory_does_not() -> None:
    before = measure_descendants(os.getpid())
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"burnt\n"
        during = measure_descendants(os.getpid())
        assert child.pid in during.pids
        assert during.memory_bytes - before.memory_bytes >= 50 << 20
        assert during.cpu_seconds - before.cpu_seconds >= 0.3
    after = measure_descendants(os.getpid())
    assert child.pid not in after.pids
    assert after.cpu_seconds >= during.cpu_seconds


class Nvml(FakeNvml):
    """Two devices. The driver reports the memory of each, and the load of the first."""

    def __init__(self) -> None:
        super().__init__([None, None])
        self.asked: list[tuple[int, int]] = []
        self.gone = False

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        if self.gone:
            raise self.NVMLError
        return [SimpleNamespace(pid=7, usedGpuMemory=100), SimpleNamespace(pid=8 + handle, usedGpuMemory=None)]

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[SimpleNamespace]:  # noqa: N802
        self.asked.append((handle, since))
        if handle == 1:
            raise self.NVMLError("not supported")
        return [
            SimpleNamespace(pid=7, smUtil=40, timeStamp=since + 10),
            SimpleNamespace(pid=7, smUtil=60, timeStamp=since + 20),
            SimpleNamespace(pid=99, smUtil=100, timeStamp=since + 20),
        ]


def test_gpus_are_those_of_the_processes() -> None:
    nvml = Nvml()
    meter = GpuMeter(nvml)
    used = meter.measure({7, 9})
    assert used is not None
    assert (used.memory_bytes, used.cores) == (200, 0.5)
    meter.measure({7})
    assert nvml.asked == [(0, 0), (1, 0), (0, 20), (1, 0)]
    nvml.gone = True
    assert meter.measure({7}) is None
