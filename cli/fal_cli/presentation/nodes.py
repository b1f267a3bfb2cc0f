"""Shows the machines that runners run on, their GPUs and machine types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fal_cli.presentation.listing import Field, Listing
from fal_cli.presentation.output import print_facts, shown_bytes, write_document, write_table
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import GpuInfo, MachineTypeInfo, NodeInfo

_GPU_COLUMNS = (
    Column(title="GPU"),
    Column(title="Label"),
    Column(title="Memory", right=True),
    Column(title="Runner", folds=True),
    Column(title="App"),
)


def write_nodes(form: str, nodes: Sequence[NodeInfo]) -> None:
    """Write the nodes, with their GPUs and the GPUs' runners."""
    if form != "pretty":
        write_document(form, {"nodes": [node_document(node) for node in nodes]})
        return
    for node in nodes:
        facts = {
            "Node": node.name,
            **({"Trouble": node.trouble} if node.trouble else {}),
            **({"Region": node.region} if node.region else {}),
            "Memory": f"{shown_bytes(node.memory_bytes)}, {shown_bytes(node.reserved_bytes)} of it reserved",
            "Cores": f"{node.cores:g}",
            "Limits": shown_bounds(node.bounds),
            "GPUs": shown_gpus(node.gpus),
        }
        print_facts(facts.items(), 12)
        if node.gpus:
            write_table(_GPU_COLUMNS, (_gpu_row(gpu) for gpu in node.gpus))


def shown_bounds(bounds: Mapping[str, str]) -> str:
    """Return what enforces machine types' limits, on one line."""
    means = [f"{subject}: {how or 'not enforced'}" for subject, how in bounds.items()]
    return ", ".join(means) or "not known"


def shown_gpus(gpus: Sequence[GpuInfo]) -> str:
    """Return how many GPUs exist and are in use, by label."""
    all_of, held = Counter(gpu.label for gpu in gpus), Counter(gpu.label for gpu in gpus if gpu.held)
    return ", ".join(f"{count} x {label}, {held[label]} in use" for label, count in all_of.items()) or "none"


def node_document(node: NodeInfo) -> dict[str, object]:
    """Return a node as JSON."""
    return {
        "name": node.name,
        "trouble": node.trouble,
        "region": node.region,
        "cores": node.cores,
        "memory_bytes": node.memory_bytes,
        "reserved_bytes": node.reserved_bytes,
        "bounds": dict(node.bounds),
        "gpus": [
            {
                "id": gpu.id,
                "label": gpu.label,
                "model": gpu.model,
                "memory_bytes": gpu.memory_bytes,
                "held": gpu.held,
                "runner_id": gpu.runner_id,
                "alias": gpu.alias,
            }
            for gpu in node.gpus
        ],
    }


def _gpu_row(gpu: GpuInfo) -> list[str]:
    who = gpu.runner_id or ("of another account" if gpu.held else "")
    return [gpu.id, gpu.label, shown_bytes(gpu.memory_bytes) if gpu.model else "made up", who, gpu.alias or ""]


MACHINE_TYPES: Listing[MachineTypeInfo] = Listing(
    noun="types",
    fields=(
        Field(title="Name", text=lambda one: one.name),
        Field(
            title="Memory",
            text=lambda one: "not bounded" if one.memory_bytes is None else shown_bytes(one.memory_bytes),
            sort_key=lambda one: one.memory_bytes,
        ),
        Field(title="Cores", text=lambda one: f"{one.cores:g}", sort_key=lambda one: one.cores),
        Field(title="Processes", text=lambda one: str(one.processes), sort_key=lambda one: one.processes),
        Field(
            title="Disk",
            text=lambda one: "not bounded" if one.disk_bytes is None else shown_bytes(one.disk_bytes),
            sort_key=lambda one: one.disk_bytes,
        ),
        Field(title="GPUs", text=lambda one: f"{one.gpu}={one.gpus}" if one.gpu else ""),
    ),
    document=lambda one: {
        "name": one.name,
        "memory_bytes": one.memory_bytes,
        "cores": one.cores,
        "processes": one.processes,
        "disk_bytes": one.disk_bytes,
        "gpu": one.gpu or None,
        "gpus": one.gpus,
    },
    item_name=lambda one: one.name,
)
