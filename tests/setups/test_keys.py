"""What a key may do, and what it may not."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.setups.apps import Deployed
from tests.setups.platform import Platform


def test_a_key_without_the_permission_is_refused(platform: Platform, app: Deployed) -> None:
    made = json.loads(platform.owner.fal("keys", "create", "--preset", "READONLY", "--json").stdout)
    runner_id = app.runner()
    for controller in (platform.owner, platform.other):
        reader = replace(controller, key=f"{made['key_id']}:{made['key_secret']}")
        assert runner_id in reader.fal("runners", "list", "--json").stdout
        refused = reader.fal("runners", "kill", runner_id, check=False)
        assert (refused.returncode, "permission" in refused.stderr) == (1, True)
        assert reader.call(f"/local/{app.name}", {}, key=reader.key).status == 403
    assert app.runner() == runner_id


def test_a_revoked_key_and_none_are_refused(platform: Platform, app: Deployed) -> None:
    made = json.loads(platform.owner.fal("keys", "create", "--scope", "API", "--json").stdout)
    key = f"{made['key_id']}:{made['key_secret']}"
    for controller in (platform.owner, platform.other):
        assert controller.call(f"/local/{app.name}", {"word": "x"}, key=key).status == 200
    platform.other.fal("keys", "revoke", made["key_id"], "--yes")
    for controller in (platform.owner, platform.other):
        for each in (key, None):
            assert controller.call(f"/local/{app.name}", {"word": "x"}, key=each).status == 401
