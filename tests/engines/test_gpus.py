"""GPUs are found by NVML. Slices come in place of their GPU, and a runner sees only its own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fal_runner.process.gpus import foreign_users
from fal_server.core.gpus import Gpu, counts_of, made_up
from fal_server.engines.local.gpus import devices_of, gpu_variables, gpus_of
from tests.engines.conftest import NODE
from tests.support.nvml import FakeNvml, built_library, environment_of

_FIND = """
import json, logging
from dataclasses import asdict
from fal_server.engines.local import find_gpus
logging.basicConfig(format="%(message)s")
print(json.dumps([asdict(gpu) for gpu in find_gpus()]))
"""


def whole(number: int) -> Gpu:
    return Gpu(
        id=f"GPU-00000000-0000-0000-0000-{number:012d}",
        label="GPU-H100",
        model="NVIDIA H100 80GB HBM3",
        memory_bytes=80 << 30,
        device=number,
        nodes=(f"nvidia{number}",),
    )


def part(number: int, index: int) -> Gpu:
    return Gpu(
        id=f"MIG-00000000-0000-0000-{index:04d}-{number:012d}",
        label="GPU-H100-1G.10GB",
        model="NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        memory_bytes=10 << 30,
        device=number,
        nodes=(f"nvidia{number}",),
    )


def found(environment: dict[str, str]) -> tuple[list[Gpu], str]:
    """Return the GPUs that a process with this environment finds. Return its log, too."""
    done = subprocess.run(
        [sys.executable, "-c", _FIND], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    gpus = [Gpu(**{**fields, "nodes": tuple(fields["nodes"])}) for fields in json.loads(done.stdout)]
    return gpus, done.stderr


def test_whole_gpus_and_slices_are_listed() -> None:
    assert gpus_of(FakeNvml([None, None, 2])) == (whole(0), whole(1), part(2, 0), part(2, 1))


def test_one_that_is_cut_into_nothing_offers_nothing() -> None:
    assert gpus_of(FakeNvml([0, None])) == (whole(1),)


def test_one_that_does_not_answer_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert gpus_of(FakeNvml([None, None], lost=[0])) == (whole(1),)
    assert "GPU 0 of this machine is not offered: GPU is lost" in caplog.text


def test_a_model_that_cannot_be_cut_is_whole() -> None:
    [gpu] = gpus_of(FakeNvml([None], model="NVIDIA GeForce RTX 4090"))
    assert (gpu.label, gpu.exists) == ("GPU-RTX4090", True)


def test_the_library_is_loaded_and_asked(tmp_path: Path) -> None:
    library = built_library(tmp_path)
    if library is None:
        # Without a compiler there is no library, which is reported.
        assert found({"FAL_NVML_LIBRARY": "/nowhere.so"})[0] == []
        return
    gpus, said = found({**environment_of(library, 4, FAKE_NVML_MIG="3:2", FAKE_NVML_LOST="1")})
    assert gpus == [whole(0), whole(2), part(3, 0), part(3, 1)]
    assert "GPU 1 of this machine is not offered: GPU is lost" in said
    gpus, said = found({**environment_of(library, 4, FAKE_NVML_INIT="18")})
    assert gpus == []
    assert "the GPUs of this machine are not offered: RM has detected an NVML/RM version mismatch" in said


def test_a_library_that_is_not_there_is_said() -> None:
    gpus, said = found({"FAL_NVML_LIBRARY": "/nowhere.so"})
    assert gpus == []
    assert "the GPUs of this machine are not offered: /nowhere.so: cannot open shared object file" in said


def test_a_machine_without_a_driver_offers_none() -> None:
    if not Path("/dev/nvidiactl").exists():
        assert found({"FAL_NVML_LIBRARY": ""}) == ([], "")


def test_the_variables_name_the_runners_own() -> None:
    gpus = (whole(0), part(1, 0), part(1, 1))
    own = [gpus[2].id, gpus[0].id]
    both = f"{gpus[2].id},{gpus[0].id}"
    assert gpu_variables(gpus, own) == {"CUDA_VISIBLE_DEVICES": both, "NVIDIA_VISIBLE_DEVICES": both}
    assert gpu_variables(gpus, ()) == {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    made_up = (Gpu(id="GPU-A/0", label="GPU-A"),)
    assert gpu_variables(made_up, ["GPU-A/0"]) == {}


def test_slices_have_device_files_of_their_own(tmp_path: Path) -> None:
    minors = tmp_path / "mig-minors"
    lines = ["config 1", "monitor 2", "gpu1/gi1/access 12", "gpu1/gi1/ci0/access 13", "gpu1/gi1/ci1/access 14"]
    minors.write_text("\n".join([*lines, "gpu1/gi2/access 21", "gpu1/gi2/ci0/access 22", "gpu0/gi1/access 3"]))
    first, second, third = gpus_of(FakeNvml([None, 2]), minors)
    assert first.nodes == ("nvidia0",)
    assert second.nodes == ("nvidia1", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13")
    assert third.nodes == ("nvidia1", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22")


def test_a_runner_gets_the_device_files_of_its_own_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-modeset", "nvme0", "dri", "null"):
        (tmp_path / name).touch()
    gpus = (whole(0), whole(1))
    shared = ("nvidiactl", "nvidia-modeset")
    assert devices_of(gpus, [gpus[1].id], tmp_path) == ("nvidia1", *shared)
    assert devices_of(gpus, [gpu.id for gpu in gpus], tmp_path) == ("nvidia0", "nvidia1", *shared)
    assert devices_of(gpus, [], tmp_path) == ()


def test_one_that_the_operator_alone_names_may_be_any(tmp_path: Path) -> None:
    for name in ("kfd", "dri", "nvme0", "null"):
        (tmp_path / name).touch()
    gpus = made_up({"GPU-MI300X": 1})
    assert devices_of(gpus, [gpus[0].id], tmp_path) == ("dri", "kfd")
    assert devices_of(gpus, [], tmp_path) == ()
    assert devices_of([*gpus, whole(0)], [gpus[0].id], tmp_path) == ()


def test_strangers_on_a_gpu_are_named() -> None:
    gone = 2**22 + 1  # above every number that Linux gives
    nvml = FakeNvml([None, None], users={1: [os.getpid(), os.getppid(), gone]})
    user, program = pwd.getpwuid(os.getuid()).pw_name, Path("/proc/self/comm").read_text().strip()
    assert foreign_users([whole(0).id, whole(1).id], {os.getppid()}, nvml) == [
        f"GPU {whole(1).id} is used by others, too: process {os.getpid()} ({program}) of user {user}, process {gone}"
    ]
    assert foreign_users([whole(0).id], (), nvml) == []


async def test_the_log_of_a_runner_names_strangers_on_its_gpu(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = built_library(rig.root, f"FAKE_NVML_GPUS=2 FAKE_NVML_USER=1:{os.getpid()}")
    if library is None:
        return  # the test above checks the same without a library
    monkeypatch.setenv("FAL_NVML_LIBRARY", str(library))
    gpus = (whole(0), whole(1))
    await rig.restart(node=replace(NODE, total=replace(NODE.total, gpus=counts_of(gpus)), gpus=gpus))
    runner = await rig.start_launch(replace(rig.launch(lambda: None), gpus=(gpus[1].id,)))
    await rig.lines.until(runner.runner_id, f"GPU {gpus[1].id} is used by others, too: process {os.getpid()}")


async def test_the_worker_and_commands_see_them_whatever_the_app_says(rig: Any) -> None:
    gpus = (whole(0), whole(1))
    total = replace(NODE.total, gpus=counts_of(gpus))
    await rig.restart(node=replace(NODE, total=total, gpus=gpus))

    def app() -> None:
        import os
        import threading

        print("sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        threading.Event().wait()

    launch = replace(rig.launch(app, variables={"CUDA_VISIBLE_DEVICES": "all"}), gpus=(gpus[1].id,))
    runner = await rig.start_launch(launch)
    await rig.lines.until(runner.runner_id, f"sees {gpus[1].id}")
    ran = await rig.run(runner, "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES")
    assert ran.stdout.decode().strip() == gpus[1].id
    without = await rig.start_launch(rig.launch(app))
    line = await rig.lines.until(without.runner_id, "sees")
    assert line.message.strip() == "sees"
