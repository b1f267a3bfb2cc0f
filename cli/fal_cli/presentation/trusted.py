"""What people read of trusted networks."""

from __future__ import annotations

from collections.abc import Mapping


def shown_trusted(trusted: Mapping[str, object]) -> list[str]:
    """Return the lines of `fal status` about trusted networks. There are none without such networks."""
    networks, nodes = trusted.get("networks"), trusted.get("nodes")
    if not networks or not isinstance(networks, list) or not isinstance(nodes, dict):
        return []
    straight = [str(name) for name, trouble in nodes.items() if not trouble]
    reached = f"requests to {', '.join(straight)} go there without TLS" if straight else "no node is reached there"
    return [
        f"Trusted:     {', '.join(map(str, networks))}: {reached}",
        *[f"             {name}: {trouble}" for name, trouble in nodes.items() if trouble],
    ]
