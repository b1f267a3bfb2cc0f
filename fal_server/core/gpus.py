"""Individual GPUs: their labels, and their assignment to runners."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

_VENDOR = re.compile(r"^(NVIDIA|TESLA|QUADRO|GEFORCE)\s+")
_FAMILIES = ("RTX", "GTX", "TITAN", "PRO", "GRID")
_SUFFIXES = ("TI", "SUPER")
_SLICE = re.compile(r"\bMIG\s+(\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU or a slice of one. One runner holds it at a time.

    Attributes:
        id: its UUID, by which CUDA finds it; a made-up name for a simulated GPU.
        label: its name in machine types, such as `GPU-H100`.
        model: the manufacturer's name; empty for a simulated GPU.
        device: the number of its device file; a slice has its GPU's. None for a simulated GPU.
        nodes: the device files that lead to it and to no other GPU or slice, by their paths below /dev.
    """

    id: str
    label: str
    model: str = ""
    memory_bytes: int = 0
    device: int | None = None
    nodes: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether it is a real device, not one that the operator simulates."""
        return self.device is not None


def label_of(model: str) -> str:
    """Return the label of a model: `NVIDIA H100 80GB HBM3` is `GPU-H100`, a slice of it `GPU-H100-1G.10GB`.

    It omits memory and form factor, like the names of machine types that clients know.
    """
    text = model.strip().upper()
    part = _SLICE.search(text)
    text = _SLICE.sub("", text).strip()
    while (shorter := _VENDOR.sub("", text)) != text:
        text = shorter
    words = text.split() or ["UNKNOWN"]
    name = words.pop(0)
    while name.rpartition(" ")[2] in _FAMILIES and words:
        name += f" {words.pop(0)}"
    if words and words[0] in _SUFFIXES:
        name += words.pop(0)
    family, _, number = name.rpartition(" ")
    # `RTX A6000` is an A6000, but `RTX 4090` is an RTX4090.
    own = number[:1].isalpha() and number not in _FAMILIES and family != "TITAN"
    short = number if own else f"{family}{number}".replace(" ", "")
    short = re.sub(r"[^A-Z0-9.]", "", short.partition("-")[0]) or "UNKNOWN"
    size = "" if part is None else "-" + re.sub(r"[^A-Z0-9.]", ".", part[1])
    return f"GPU-{short}{size}"


def made_up(counts: Mapping[str, int]) -> tuple[Gpu, ...]:
    """Return simulated GPUs."""
    return tuple(Gpu(id=f"{label}/{number}", label=label) for label, count in counts.items() for number in range(count))


def counts_of(gpus: Iterable[Gpu]) -> dict[str, int]:
    """Return the number of GPUs by label."""
    return dict(Counter(gpu.label for gpu in gpus))


def offered(found: Sequence[Gpu], wanted: Mapping[str, int]) -> tuple[Gpu, ...]:
    """Return the GPUs that a machine offers.

    Args:
        found: its GPUs.
        wanted: the operator's numbers by label; empty offers the found ones. The found ones get these labels in order,
            and missing ones are simulated.
    """
    if not wanted:
        return tuple(found)
    left = list(found)
    return tuple(replace(left.pop(0), label=gpu.label) if left else gpu for gpu in made_up(wanted))


def assign(gpus: Iterable[Gpu], held: Collection[str], wanted: Mapping[str, int]) -> tuple[str, ...]:
    """Choose GPUs for a runner. It gets the first ones of each label that nobody holds.

    Args:
        gpus: those of the node.
        held: the ids of those that runners hold.
        wanted: how many of each label.

    Returns:
        Their ids, as many as requested if the node has room.
    """
    chosen: list[str] = []
    for label, count in wanted.items():
        free = [gpu.id for gpu in gpus if gpu.label == label and gpu.id not in held]
        chosen += free[:count]
    return tuple(chosen)
