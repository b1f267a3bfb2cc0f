"""What is no argument is refused by its name, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fal.api import ArgumentError, SyncServerlessClient

WRONG: dict[str, tuple[str, Callable[[SyncServerlessClient], object]]] = {
    "apps.list filter": ("filter", lambda c: c.apps.list(filter=3)),
    "apps.list environment": ("environment_name", lambda c: c.apps.list(environment_name=3)),
    "apps.scale count": ("max_concurrency", lambda c: c.apps.scale("x", max_concurrency="3")),
    "apps.scale fraction": ("max_concurrency", lambda c: c.apps.scale("x", max_concurrency=2.5)),
    "apps.scale machine types": ("machine_types", lambda c: c.apps.scale("x", machine_types="XS")),
    "apps.scale regions": ("regions", lambda c: c.apps.scale("x", regions=[1])),
    "apps.runners": ("since", lambda c: c.apps.runners("x", since="1h")),
    "apps.rollout": ("force", lambda c: c.apps.rollout("x", force="yes")),
    "apps.set_rev auth": ("auth", lambda c: c.apps.set_rev("x", "y", auth=3)),
    "apps.set_rev strategy": ("strategy", lambda c: c.apps.set_rev("x", "y", strategy=3)),
    "apps.delete_rev": ("application_id", lambda c: c.apps.delete_rev(3)),
    "apps.delete": ("app_name", lambda c: c.apps.delete(b"x")),
    "apps.gpus": ("app_name", lambda c: c.apps.gpus(3)),
    "runners.list": ("state", lambda c: c.runners.list(state=5)),
    "runners.list one": ("state", lambda c: c.runners.list(state=[5])),
    "runners.stop": ("grace_seconds", lambda c: c.runners.stop("r", grace="x")),
    "runners.exec command": ("command", lambda c: c.runners.exec("r", [1])),
    "runners.exec timeout": ("timeout", lambda c: c.runners.exec("r", ["a"], timeout="5")),
    "runners.exec env": ("env", lambda c: c.runners.exec("r", ["a"], env={"A": 1})),
    "runners.exec cwd": ("cwd", lambda c: c.runners.exec("r", ["a"], cwd=3)),
    "keys.create scope": ("scope", lambda c: c.keys.create(scope=3)),
    "keys.create description": ("description", lambda c: c.keys.create(scope="ADMIN", description=3)),
    "keys.create permissions": ("permissions", lambda c: c.keys.create(permissions=[3])),
    "keys.revoke": ("key_id", lambda c: c.keys.revoke(3)),
    "secrets.set": ("environment_name", lambda c: c.secrets.set("A", "b", environment_name=3)),
    "queue.list name": ("app_name", lambda c: c.queue.list(3)),
    "queue.list limit": ("limit", lambda c: c.queue.list("x", limit="5")),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_the_argument(name: str) -> None:
    argument, call = WRONG[name]
    # Nothing listens there, so a request that were sent would be another error.
    with SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client, pytest.raises(ArgumentError) as caught:
        call(client)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
