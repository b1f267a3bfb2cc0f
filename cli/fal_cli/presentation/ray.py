"""Shows the Ray cluster that decides where runners start."""

from __future__ import annotations

from collections.abc import Mapping

_NO_AUTHENTICATION = "without authentication: whoever reaches its port controls it"


def shown_ray(ray: Mapping[str, object]) -> str:
    """Return what is known of it, on one line."""
    if trouble := ray.get("trouble"):
        return str(trouble)
    machines = ray_machines(ray)
    joined = sum(bool(machine.get("node")) for machine in machines)
    text = (
        f"{ray.get('version')} at {ray.get('address')}, {joined} of {len(machines)} machines have a node; "
        f"{ray.get('reserved')} placed, {ray.get('waiting')} waiting"
    )
    if unlabelled := ray_unlabelled(ray):
        text += f"; its autoscaler does not know the region of {', '.join(unlabelled)}"
    return text if ray.get("authenticated") else f"{text}; {_NO_AUTHENTICATION}"


def ray_machines(ray: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the machines of the cluster."""
    found = ray.get("nodes")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def ray_unlabelled(ray: Mapping[str, object]) -> list[str]:
    """Return the addresses of machines without a label of their region. Its autoscaler needs that."""
    found = ray.get("unlabelled")
    return [str(each) for each in found] if isinstance(found, list) else []
