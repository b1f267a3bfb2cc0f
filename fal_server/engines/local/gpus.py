"""Finds the GPUs of this machine, and shows each runner only its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from fal_runner.process.nvml import Nvml, NvmlUnavailable, open_nvml
from fal_server.core.gpus import Gpu, label_of

log = logging.getLogger(__name__)


def find_gpus() -> tuple[Gpu, ...]:
    """Ask the driver for its GPUs; the slices of a GPU replace it."""
    try:
        nvml = open_nvml()
    except NvmlUnavailable as error:
        log.warning("the GPUs of this machine are not offered: %s", error)
        return ()
    return () if nvml is None else gpus_of(nvml)


def gpus_of(nvml: Nvml) -> tuple[Gpu, ...]:
    """List the GPUs; log and omit those that do not answer.

    Args:
        nvml: the library, initialised.
    """
    found: list[Gpu] = []
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        log.warning("the GPUs of this machine are not offered: %s", error)
        return ()
    for index in range(count):
        try:
            found += _of_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        except nvml.NVMLError as error:
            log.warning("GPU %d of this machine is not offered: %s", index, error)
    return tuple(found)


def gpu_variables(gpus: Sequence[Gpu], held: Sequence[str]) -> dict[str, str]:
    """Return the variables that show CUDA only the runner's own GPUs, or none.

    Args:
        gpus: those of the machine; without any there is nothing to hide.
        held: the ids of the runner's GPUs.
    """
    existing = [gpu.id for gpu in gpus if gpu.exists]
    if not existing:
        return {}
    own = ",".join(gpu for gpu in held if gpu in existing)
    return {"CUDA_VISIBLE_DEVICES": own, "NVIDIA_VISIBLE_DEVICES": own or "void"}


def _of_device(nvml: Nvml, device: object) -> Iterator[Gpu]:
    number = nvml.nvmlDeviceGetMinorNumber(device)
    if not _is_cut(nvml, device):
        yield _gpu(nvml, device, number)
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
        except nvml.NVMLError:
            continue  # this place has no slice
        yield _gpu(nvml, part, number)


def _is_cut(nvml: Nvml, device: object) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:
        return False  # this GPU cannot be cut into slices
    return current == nvml.NVML_DEVICE_MIG_ENABLE


def _gpu(nvml: Nvml, device: object, number: int) -> Gpu:
    model = _text(nvml.nvmlDeviceGetName(device))
    return Gpu(
        id=_text(nvml.nvmlDeviceGetUUID(device)),
        label=label_of(model),
        model=model,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(device).total),
        device=number,
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
