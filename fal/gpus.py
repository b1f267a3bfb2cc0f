"""Counts the GPUs in use by their models' short names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from fal_grpc.errors import NotFoundError

if TYPE_CHECKING:
    from fal_grpc.adapter.values import JSON

METRICS_PATH = "/applications/metrics"
"""The controller's path that lists the GPUs that its runners hold."""

_NO_GPUS = frozenset({"XS", "S", "M", "L", "XL"})
_MODEL = re.compile(r"\b(?:(?P<mig>H100[ _-]?MIG)|(?P<rtx>RTX[ _-]?\d{4})|(?P<plain>[BHAL]\d{2,3}S?|\d{4}))\b")


class GpuUsage(TypedDict):
    """GPUs in use: `gpus` by model, for example {"H100": 3}, and their `total`."""

    gpus: dict[str, int]
    total: int


def usage_of_all(metrics: JSON) -> GpuUsage:
    """Return the GPUs of all runners from the response of `METRICS_PATH`."""
    summary = metrics.get("summary") if isinstance(metrics, dict) else None
    return _counted(summary.get("total_gpu_by_type") if isinstance(summary, dict) else None)


def usage_of_app(metrics: JSON, app_name: str) -> GpuUsage:
    """Return the GPUs of one app, named with or without its owner.

    Raises:
        NotFoundError: no app of that name has runners.
    """
    apps = metrics.get("apps") if isinstance(metrics, dict) else None
    wanted = app_name.rpartition("/")[2]
    for name, app in (apps if isinstance(apps, dict) else {}).items():
        if isinstance(app, dict) and name.rpartition("/")[2] == wanted:
            return _counted(app.get("gpu_count_by_type"))
    raise NotFoundError(f"Application '{app_name}' not found in metrics: it may have no runners; see `fal apps list`")


def _counted(raw: object) -> GpuUsage:
    counts = count_by_model(raw if isinstance(raw, dict) else {})
    return {"gpus": counts, "total": sum(counts.values())}


def count_by_model(raw: Mapping[str, object]) -> dict[str, int]:
    """Sum counts by short model name: `NVIDIA H100 80GB HBM3` and `GPU-H100` both become `H100`."""
    counts: dict[str, int] = {}
    for name, count in raw.items():
        if isinstance(count, int) and count > 0 and name not in _NO_GPUS:
            model = short_name(name)
            counts[model] = counts.get(model, 0) + count
    return dict(sorted(counts.items()))


def short_name(name: str) -> str:
    """Return the common short name of a model."""
    found = _MODEL.search(name.upper().replace("_", " "))
    if found is None:
        return name.removeprefix("GPU-")
    if found["mig"]:
        return "H100 MIG"
    if found["rtx"]:
        return re.sub(r"RTX[ -]?", "RTX ", found["rtx"])
    return str(found["plain"])
