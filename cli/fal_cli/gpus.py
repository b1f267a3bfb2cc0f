"""`fal runners gpus` and `fal apps gpus`: how many GPUs are in use, by model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

from fal_cli.client import open_client
from fal_cli.exits import CommandError
from fal_cli.output import say, write_document, write_table
from fal_cli.table import Column

_COLUMNS = (Column(title="Type"), Column(title="Count", right=True))
_NO_GPUS = frozenset({"XS", "S", "M", "L", "XL"})
_MODEL = re.compile(r"\b(?:(?P<mig>H100[ _-]?MIG)|(?P<rtx>RTX[ _-]?\d{4})|(?P<plain>[BHAL]\d{2,3}S?|\d{4}))\b")


def show_gpus(args: argparse.Namespace) -> None:
    """Show those of one app (`args.app_name`), or of all.

    Raises:
        CommandError: the controller knows no such app.
    """
    with open_client(args) as client:
        metrics = client.rest().ask("GET", "/applications/metrics")
    found = metrics if isinstance(metrics, dict) else {}
    name = getattr(args, "app_name", None)
    raw: object
    if name is None:
        summary = found.get("summary")
        raw = summary.get("total_gpu_by_type") if isinstance(summary, dict) else None
    else:
        apps = found.get("apps")
        ours = apps.items() if isinstance(apps, dict) else ()
        app = next((app for key, app in ours if key.rpartition("/")[2] == name), None)
        if not isinstance(app, dict):
            raise CommandError(
                f"Application '{name}' not found in metrics: it may have no runners; see `fal apps list`"
            )
        raw = app.get("gpu_count_by_type")
    counts = count_by_model(raw if isinstance(raw, dict) else {})
    total = sum(counts.values())
    if args.output != "pretty":
        write_document(args.output, {"gpus": counts, "total": total})
        return
    write_table(_COLUMNS, ([model, str(count)] for model, count in counts.items()))
    say(f"Total: {total}")


def count_by_model(raw: Mapping[str, object]) -> dict[str, int]:
    """Counts by the short name of each model: `NVIDIA H100 80GB HBM3` and `GPU-H100` are both `H100`."""
    counts: dict[str, int] = {}
    for name, count in raw.items():
        if isinstance(count, int) and count > 0 and name not in _NO_GPUS:
            model = short_name(name)
            counts[model] = counts.get(model, 0) + count
    return dict(sorted(counts.items()))


def short_name(name: str) -> str:
    """What people call a model."""
    found = _MODEL.search(name.upper().replace("_", " "))
    if found is None:
        return name.removeprefix("GPU-")
    if found["mig"]:
        return "H100 MIG"
    if found["rtx"]:
        return re.sub(r"RTX[ -]?", "RTX ", found["rtx"])
    return str(found["plain"])
