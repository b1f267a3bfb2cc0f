"""The names by which a node's door is asked for a connection. They say where it is to lead."""

from __future__ import annotations

from enum import StrEnum

from fal_server.engines.remote.epoch import Epoch

DOMAIN = "fal-node"
_NETWORK = "--network"


class DoorTarget(StrEnum):
    """What a door leads to."""

    CONTROL = "control"
    SHIM = "shim"
    HTTP = "http"


def server_name(node: str, target: DoorTarget, who: str) -> str:
    """Return the name to ask for.

    Args:
        who: the runner; for HTTP with its port, see `with_port`; for control anything.
    """
    return f"{who}.{target}.{node}.{DOMAIN}"


def on_network(runner_id: str) -> str:
    """Name a runner whose port is open on a trusted network, too. A door is asked for its plain name."""
    return f"{runner_id}{_NETWORK}"


def split_network(name: str) -> tuple[str, bool]:
    """Return a name's runner, and whether that is on a trusted network."""
    return name.removesuffix(_NETWORK), name.endswith(_NETWORK)


def with_port(runner_id: str, port: int) -> str:
    """Name the port of a runner."""
    return f"{runner_id}--{port}"


def parse(name: str) -> tuple[DoorTarget, str] | None:
    """Return where a name leads; None if it is not ours."""
    who, _, rest = name.partition(".")
    target, _, _node = rest.partition(".")
    try:
        return DoorTarget(target), who
    except ValueError:
        return None


def with_epoch(epoch: Epoch, who: str) -> str:
    """Say of which start of a controller a connection is."""
    return f"{epoch}--{who}"


def split_epoch(who: str) -> tuple[Epoch | None, str]:
    """Return a connection's epoch, and the rest of its name. The epoch is None if the name does not say it."""
    first, separator, rest = who.partition("--")
    epoch = Epoch.parse(first) if separator else None
    return (None, who) if epoch is None else (epoch, rest)


def all_names(node: str) -> list[str]:
    """Return the names of a node's certificate."""
    return [server_name(node, target, "*") for target in DoorTarget]
