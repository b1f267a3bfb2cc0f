"""Finds this machine's GPUs, and shows each runner only its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fal_runner.process.nvml import Nvml, NvmlUnavailable, open_nvml
from fal_server.core.gpus import Gpu, label_of

log = logging.getLogger(__name__)
_DEVICES = Path("/dev")
_MINORS = Path("/proc/driver/nvidia-caps/mig-minors")
_MINOR = re.compile(r"(gpu\d+/gi\d+(?:/ci\d+)?/access) (\d+)")
# Through these alone no GPU can be reached: each call names one, whose own file the caller must have opened.
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_OF_ANY_GPU = ("nvidia", "dri", "kfd", "dxg")


def find_gpus() -> tuple[Gpu, ...]:
    """Ask the driver for its GPUs. The slices of a GPU replace it."""
    try:
        nvml = open_nvml()
    except NvmlUnavailable as error:
        log.warning("the GPUs of this machine are not offered: %s", error)
        return ()
    return () if nvml is None else gpus_of(nvml)


def gpus_of(nvml: Nvml, minors: Path = _MINORS) -> tuple[Gpu, ...]:
    """List the GPUs; log and omit those that do not answer.

    Args:
        nvml: the library, initialized.
        minors: the driver's list of the device files of slices.
    """
    found: list[Gpu] = []
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        log.warning("the GPUs of this machine are not offered: %s", error)
        return ()
    for index in range(count):
        try:
            found += _of_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index), minors)
        except nvml.NVMLError as error:
            log.warning("GPU %d of this machine is not offered: %s", index, error)
    return tuple(found)


def gpu_variables(gpus: Sequence[Gpu], held: Sequence[str]) -> dict[str, str]:
    """Return variables that show CUDA only the runner's own GPUs, or none.

    Args:
        gpus: those of the machine; without any there is nothing to hide.
        held: the ids of the runner's GPUs.
    """
    existing = [gpu.id for gpu in gpus if gpu.exists]
    if not existing:
        return {}
    own = ",".join(gpu for gpu in held if gpu in existing)
    return {"CUDA_VISIBLE_DEVICES": own, "NVIDIA_VISIBLE_DEVICES": own or "void"}


def devices_of(gpus: Sequence[Gpu], held: Sequence[str], devices: Path = _DEVICES) -> tuple[str, ...]:
    """Return the device files, below /dev, of a runner's own GPUs. There are none for a runner without GPUs.

    Args:
        gpus: those of the machine. If the operator alone names them, nobody knows whose each file is, and a runner with
            one gets those of all.
        held: the ids of the runner's.
        devices: /dev.
    """
    own = [gpu for gpu in gpus if gpu.id in held]
    names: list[str] = []
    if any(gpu.exists for gpu in own):
        names = [*(node for gpu in own for node in gpu.nodes), *_SHARED]
    elif own and not any(gpu.exists for gpu in gpus):
        names = sorted(path.name for path in devices.iterdir() if path.name.startswith(_OF_ANY_GPU))
    return tuple(name for name in dict.fromkeys(names) if (devices / name).exists())


def _of_device(nvml: Nvml, device: object, minors: Path) -> Iterator[Gpu]:
    number = nvml.nvmlDeviceGetMinorNumber(device)
    if not _is_cut(nvml, device):
        yield _gpu(nvml, device, number)
        return
    listed = _listed(minors)
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
        except nvml.NVMLError:
            continue  # this place has no slice
        yield _gpu(nvml, part, number, _capabilities(nvml, part, number, listed))


def _capabilities(nvml: Nvml, part: object, number: int, listed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the device files that let a program use a slice. They are of its GPU instance and compute instance."""
    instance = f"gpu{number}/gi{nvml.nvmlDeviceGetGpuInstanceId(part)}"
    compute = f"{instance}/ci{nvml.nvmlDeviceGetComputeInstanceId(part)}"
    minors = (listed.get(f"{each}/access") for each in (instance, compute))
    return tuple(f"nvidia-caps/nvidia-cap{minor}" for minor in minors if minor is not None)


def _listed(minors: Path) -> Mapping[str, str]:
    """Read the numbers of the device files of slices. A driver that guards slices by files of /proc has none."""
    try:
        return dict(_MINOR.findall(minors.read_text()))
    except OSError:
        return {}


def _is_cut(nvml: Nvml, device: object) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:
        return False  # this GPU cannot be cut into slices
    return current == nvml.NVML_DEVICE_MIG_ENABLE


def _gpu(nvml: Nvml, device: object, number: int, capabilities: Sequence[str] = ()) -> Gpu:
    model = _text(nvml.nvmlDeviceGetName(device))
    return Gpu(
        id=_text(nvml.nvmlDeviceGetUUID(device)),
        label=label_of(model),
        model=model,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(device).total),
        device=number,
        nodes=(f"nvidia{number}", *capabilities),
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
