"""Plans of deploys. A deploy then does what they say, and they change nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from fal_server.core.apps import Strategy
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.logs import LogEntry, LogLevel
from fal_server.core.machines import Node, Resources
from fal_server.core.revisions import EnvironmentSpec
from fal_server.services.deploy_plans import DeployPlan
from fal_server.services.views import DeployRequest
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.platform import Platform, deploy_request


def by_name(plan: DeployPlan) -> dict[str, tuple[str, str]]:
    return {change.name: (change.current, change.planned) for change in plan.changes}


async def test_the_plan_of_a_new_app_has_everything_and_stores_nothing(platform: Platform) -> None:
    request = deploy_request(scaling={"keep_alive": 60, "machine_types": ("S",)})
    plan = await platform.deploy_plans.plan(SCOPE, request)
    assert plan.revision_id is None
    assert by_name(plan)["keep_alive"] == ("", "60")
    assert by_name(plan)["machine_types"] == ("", "S")
    assert plan.problems == ()
    assert plan.steps == ("start the first runner with the first request",)
    assert platform.catalog.get(app_id("a")) is None
    assert await platform.revisions.list(SCOPE, None, None) == []
    assert platform.builder.builds == 0


async def test_the_same_code_again_changes_nothing(platform: Platform) -> None:
    await platform.deploy(scaling={"keep_alive": 60})
    plan = await platform.deploy_plans.plan(SCOPE, deploy_request(scaling={"keep_alive": 60}))
    assert plan.changes == ()
    assert plan.revision_id == platform.app().revision_id


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("reset", [False, True])
async def test_what_the_plan_says_is_what_the_deploy_does(platform: Platform, strategy: Strategy, reset: bool) -> None:
    await platform.deploy(scaling={"keep_alive": 60, "max_multiplexing": 1})
    scaling = {"keep_alive": 5, "max_multiplexing": 3}
    changed = deploy_request(scaling=scaling, entrypoint="module:other", strategy=strategy)
    changed = replace(changed, reset_scale=reset)
    plan = by_name(await platform.deploy_plans.plan(SCOPE, changed))
    *_, _done = [event async for event in platform.deploys.deploy(SCOPE, changed)]
    await platform.settled()
    app = platform.app()
    assert plan["max_multiplexing"] == ("1", str(app.scaling.max_multiplexing))
    assert plan.get("keep_alive", ("", "60"))[1] == str(app.scaling.keep_alive)
    assert ("keep_alive" in plan) is reset
    after = await platform.store.get_revision(app.account, app.revision_id)
    assert after is not None
    assert plan["entrypoint"] == ("module:app", after.entrypoint)


@pytest.mark.parametrize("strategy", Strategy)
async def test_settings_that_stay_though_the_code_names_others_are_said(platform: Platform, strategy: Strategy) -> None:
    await platform.deploy(scaling={"keep_alive": 60, "max_concurrency": 4})
    request = deploy_request(scaling={"keep_alive": 5, "max_concurrency": 4, "regions": ()}, strategy=strategy)
    said = "a keeps keep_alive 60 (the code has 5): `fal deploy --reset-scale` takes what the code has"
    for sent, expected in ((request, said), (replace(request, reset_scale=True), "")):
        assert (await platform.deploy_plans.plan(SCOPE, sent)).kept == expected
        events = [event async for event in platform.deploys.deploy(SCOPE, sent)]
        lines = [event.message for event in events if isinstance(event, LogEntry) and " keeps " in event.message]
        assert lines == [expected] * bool(expected)
        await platform.settled()


async def test_settings_that_the_code_leaves_open_stay_without_a_word(platform: Platform) -> None:
    await platform.deploy(scaling={"keep_alive": 60})
    plan = await platform.deploy_plans.plan(SCOPE, deploy_request(scaling={"max_multiplexing": 3}))
    assert plan.kept == ""


async def test_code_is_compared_by_its_hash_and_stored_nowhere(platform: Platform) -> None:
    def sent(code: bytes) -> DeployRequest:
        return deploy_request(entrypoint=None, function=("cloudpickle", code))

    assert [event async for event in platform.deploys.deploy(SCOPE, sent(b"old"))]
    plan = by_name(await platform.deploy_plans.plan(SCOPE, sent(b"new")))
    old, new = (hashlib.sha256(code).hexdigest() for code in (b"old", b"new"))
    assert plan == {"code": (f"sha256:{old[:12]}", f"sha256:{new[:12]}")}
    assert platform.blobs.path(old).exists()
    with pytest.raises(NotFound):
        platform.blobs.path(new)


async def test_missing_secrets_and_gpus_are_said_by_the_plan_and_before_a_build(platform: Platform) -> None:
    platform.engine.machines = [
        Node(name="desk", total=Resources(memory_mib=8192, milli_cpus=4000, gpus={"GPU-T4": 1}))
    ]
    wanted = deploy_request(secret_names=("HF_TOKEN",), scaling={"machine_types": ("GPU-H100",)})
    plan = await platform.deploy_plans.plan(SCOPE, wanted)
    assert ["HF_TOKEN" in plan.problems[0], "GPU-H100" in plan.problems[1]] == [True, True]
    with pytest.raises(FailedPrecondition, match="HF_TOKEN"):
        [event async for event in platform.deploys.build(SCOPE, wanted.code)]
    assert platform.builder.builds == 0
    first, *_ = [event async for event in platform.deploys.build(SCOPE, replace(wanted.code, secret_names=None))]
    assert isinstance(first, LogEntry)
    assert "no machine can run it" in first.message
    with pytest.raises(InvalidArgument, match="machine type 'Q'"):
        [
            event
            async for event in platform.deploys.build(SCOPE, replace(wanted.code, scaling={"machine_types": ("Q",)}))
        ]


async def test_a_region_without_machines_is_said_before_a_build(platform: Platform) -> None:
    far = Node(name="far", region="us-east", total=Resources(memory_mib=8192, milli_cpus=4000, gpus={"GPU-T4": 1}))
    platform.engine.machines = [far, replace(far, name="near", region="eu-north", total=replace(far.total, gpus={}))]

    async def said(**scaling: tuple[str, ...]) -> list[str]:
        code = deploy_request(scaling=scaling).code
        events = [event async for event in platform.deploys.build(SCOPE, code)]
        warnings = [event for event in events if isinstance(event, LogEntry) and event.level is LogLevel.WARNING]
        return [event.message for event in warnings]

    assert await said(regions=("us-east",), machine_types=("GPU-T4",)) == []
    (nowhere,) = await said(regions=("ap-south",))
    assert "no machine is in a region that the app allows (ap-south); they are in: eu-north, us-east" in nowhere
    (elsewhere,) = await said(regions=("eu-north",), machine_types=("GPU-T4",))
    assert "node near" in elsewhere
    assert "node far" not in elsewhere


async def test_an_explanation_says_that_no_machine_is_in_the_regions(platform: Platform) -> None:
    platform.engine.machines = [
        Node(name="far", region="us-east", total=Resources(memory_mib=8192, milli_cpus=4000, gpus={}))
    ]
    await platform.deploy()
    assert (await platform.explainer.explain(SCOPE, "a", "")).lack == ""
    await platform.apps.update(SCOPE, "a", "", {"regions": ("us-west",)})
    lack = (await platform.explainer.explain(SCOPE, "a", "")).lack
    assert lack == "no machine is in a region that the app allows (us-west); they are in: us-east"


@pytest.mark.parametrize("regions", [("us west",), ("a" * 64,), ("us-east", ""), ("US",), ("none",), ("us-east", "-a")])
async def test_an_app_names_regions_by_the_rule_for_machines(platform: Platform, regions: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match=r"^regions") as refused:
        [event async for event in platform.deploys.build(SCOPE, deploy_request(scaling={"regions": regions}).code)]
    assert refused.value.field == "regions"
    await platform.deploy()
    with pytest.raises(InvalidArgument, match=r"^regions"):
        await platform.apps.update(SCOPE, "a", "", {"regions": regions})


async def test_no_secret_is_in_a_plan(platform: Platform) -> None:
    image = {"image": "registry/app", "registries": {"r": {"username": "u", "password": "hush"}}}
    specs = (
        EnvironmentSpec(kind="container", configuration={"image": image}),
        EnvironmentSpec(
            kind="virtualenv", configuration={"requirements": ["--extra-index-url", "https://u:hush@host/simple"]}
        ),
    )
    for spec in specs:
        plan = await platform.deploy_plans.plan(SCOPE, deploy_request(environments=(spec,)))
        assert "hush" not in str(plan)


async def test_a_plan_for_an_environment_that_does_not_exist(platform: Platform) -> None:
    with pytest.raises(NotFound):
        await platform.deploy_plans.plan(SCOPE, deploy_request(environment_name="nowhere"))
