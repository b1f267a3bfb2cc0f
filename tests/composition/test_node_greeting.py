"""What a node prints once it listens."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fal_server.composition.node import RunningNode
from fal_server.engines.node.identity import NodeIdentity


@pytest.mark.parametrize(
    ("host", "listens", "joins"),
    [
        ("10.0.0.5", "10.0.0.5:7411", "10.0.0.5:7411"),
        ("fd00::5", "[fd00::5]:7411", "[fd00::5]:7411"),
        ("0.0.0.0", "0.0.0.0:7411", "ADDRESS:7411"),
        ("::", "[::]:7411", "ADDRESS:7411"),
    ],
)
def test_the_printed_address_leads_from_another_machine_to_this_one(host, listens, joins, tmp_path):
    identity = NodeIdentity(tmp_path / "node", lambda: datetime.now(UTC))
    greeting = RunningNode(identity, host, 7411).greeting
    assert f"listens on {listens}." in greeting
    assert f"\n  fal node join {joins}\n" in greeting
    assert ("(ADDRESS: one of this machine's" in greeting) == (joins == "ADDRESS:7411")
