"""A deploy repeated under its revision's id is answered, but not repeated."""

from __future__ import annotations

from typing import Any

import pytest

from fal_server.core.apps import Strategy
from fal_server.core.faults import Aborted, AlreadyExists
from fal_server.core.revisions import AppFile, EnvironmentSpec
from fal_server.services.views import Deployed, Registered
from tests.fakes.domain import SCOPE
from tests.fakes.platform import Platform, deploy_request

ONE = "00000000-0000-4000-8000-000000000001"

OTHER = EnvironmentSpec(kind="virtualenv", configuration={"requirements": ["x"]})


async def test_a_repeated_deploy_gets_the_first_answer(platform: Platform) -> None:
    first = await platform.deploy()
    platform.clock.advance(1)
    request = deploy_request(strategy=Strategy.RECREATE, revision_id=ONE)
    events = [event async for event in platform.deploys.deploy(SCOPE, request)]
    assert isinstance(events[-1], Deployed)
    *before, again = [event async for event in platform.deploys.deploy(SCOPE, request)]
    assert again == events[-1]
    assert before == [Registered(app_name="a", revision_id=ONE, previous_id=first.revision_id)], "nothing is built"
    assert len(await platform.revisions.list(SCOPE, "a", None)) == 2


async def test_the_id_of_another_apps_revision_is_refused(platform: Platform) -> None:
    await platform.deploy(revision_id=ONE)
    with pytest.raises(AlreadyExists, match="another app"):
        await platform.deploy("b", revision_id=ONE)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"function": ("cloudpickle", b"code"), "entrypoint": None}, "function, entrypoint"),
        (
            {"environments": (EnvironmentSpec(kind="virtualenv", configuration={"requirements": ["x"]}),)},
            "environments",
        ),
        ({"scaling": {"max_concurrency": 7}}, "scaling"),
        ({"files": (AppFile(hash="0" * 64, relative_path="a.txt"),), "num_gpus": 1}, "num_gpus, files"),
    ],
)
async def test_the_id_of_a_revision_with_other_code_is_refused(
    platform: Platform, change: dict[str, Any], what: str
) -> None:
    await platform.deploy(revision_id=ONE)
    with pytest.raises(AlreadyExists, match=f"{ONE} exists already, and differs in {what}: choose another"):
        await platform.deploy(revision_id=ONE, **change)
    assert len(await platform.revisions.list(SCOPE, "a", None)) == 1
    assert platform.app().revision_id == ONE


async def test_what_replaced_it_is_said(platform: Platform) -> None:
    await platform.deploy(revision_id=ONE)
    await platform.deploy(strategy=Strategy.RECREATE)
    with pytest.raises(Aborted, match="a newer change"):
        await platform.deploy(strategy=Strategy.RECREATE, revision_id=ONE)
