"""What people read of trusted networks."""

from __future__ import annotations

from collections.abc import Mapping


def shown_trusted(trusted: Mapping[str, object]) -> list[str]:
    """Return the lines of `fal status` about trusted networks. There are none without such networks."""
    networks = trusted_networks(trusted)
    if not networks:
        return []
    return [
        f"Trusted:     {', '.join(networks)}: {reached_there(trusted)}",
        *[f"             {name}: {trouble}" for name, trouble in by_the_door(trusted).items()],
    ]


def trusted_networks(trusted: Mapping[str, object]) -> list[str]:
    """Return the trusted networks."""
    found = trusted.get("networks")
    return [str(network) for network in found] if isinstance(found, list) else []


def reached_there(trusted: Mapping[str, object]) -> str:
    """Say to which nodes requests go straight."""
    straight = [name for name, trouble in _nodes(trusted).items() if not trouble]
    return f"requests to {', '.join(straight)} go there without TLS" if straight else "no node is reached there"


def by_the_door(trusted: Mapping[str, object]) -> dict[str, str]:
    """Return the nodes there whose requests take the door, and why."""
    return {name: trouble for name, trouble in _nodes(trusted).items() if trouble}


def _nodes(trusted: Mapping[str, object]) -> dict[str, str]:
    found = trusted.get("nodes")
    return {str(name): str(trouble or "") for name, trouble in found.items()} if isinstance(found, dict) else {}
