"""What is no argument is refused by its name, before anything is sent."""

from __future__ import annotations

from operator import attrgetter

import pytest

from fal.api import ArgumentError, SyncServerlessClient

WRONG: list[tuple[str, str, tuple[object, ...], dict[str, object]]] = [
    ("filter", "apps.list", (), {"filter": 3}),
    ("environment_name", "apps.list", (), {"environment_name": 3}),
    ("max_concurrency", "apps.scale", ("x",), {"max_concurrency": "3"}),
    ("max_concurrency", "apps.scale", ("x",), {"max_concurrency": 2.5}),
    ("machine_types", "apps.scale", ("x",), {"machine_types": "XS"}),
    ("regions", "apps.scale", ("x",), {"regions": [1]}),
    ("since", "apps.runners", ("x",), {"since": "1h"}),
    ("force", "apps.rollout", ("x",), {"force": "yes"}),
    ("auth", "apps.set_rev", ("x", "y"), {"auth": 3}),
    ("strategy", "apps.set_rev", ("x", "y"), {"strategy": 3}),
    ("application_id", "apps.delete_rev", (3,), {}),
    ("app_name", "apps.delete", (b"x",), {}),
    ("app_name", "apps.gpus", (3,), {}),
    ("state", "runners.list", (), {"state": 5}),
    ("state", "runners.list", (), {"state": [5]}),
    ("grace_seconds", "runners.stop", ("r",), {"grace": "x"}),
    ("command", "runners.exec", ("r", [1]), {}),
    ("timeout", "runners.exec", ("r", ["a"]), {"timeout": "5"}),
    ("env", "runners.exec", ("r", ["a"]), {"env": {"A": 1}}),
    ("cwd", "runners.exec", ("r", ["a"]), {"cwd": 3}),
    ("scope", "keys.create", (), {"scope": 3}),
    ("description", "keys.create", (), {"scope": "ADMIN", "description": 3}),
    ("permissions", "keys.create", (), {"permissions": [3]}),
    ("key_id", "keys.revoke", (3,), {}),
    ("environment_name", "secrets.set", ("A", "b"), {"environment_name": 3}),
    ("app_name", "queue.list", (3,), {}),
    ("limit", "queue.list", ("x",), {"limit": "5"}),
]


@pytest.mark.parametrize(("argument", "call", "positional", "named"), WRONG)
def test_the_error_names_the_argument(
    argument: str, call: str, positional: tuple[object, ...], named: dict[str, object]
) -> None:
    # Nothing listens there, so a request that were sent would be another error.
    with SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client, pytest.raises(ArgumentError) as caught:
        attrgetter(call)(client)(*positional, **named)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
