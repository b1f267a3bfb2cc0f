"""Plans of deploys. The service gets the complete request, and the client the complete plan."""

from __future__ import annotations

from typing import Any

from fal_grpc.v1 import revision_pb2, run_pb2
from fal_grpc.v1.revision_pb2_grpc import RevisionsStub
from tests.grpc.conftest import Stack


async def test_a_plan_is_asked_with_a_whole_deploy_and_answered_in_full(stack: Stack) -> None:
    revisions: Any = RevisionsStub(stack.channel)
    request = revision_pb2.RegisterApplicationRequest(
        application_name="a",
        environments=[run_pb2.EnvironmentDefinition(kind="virtualenv")],
        function=run_pb2.SerializedObject(method="cloudpickle", definition=b"code"),
    )
    plan = await revisions.PlanApplication(
        revision_pb2.PlanApplicationRequest(application=request), metadata=stack.metadata
    )
    assert plan == revision_pb2.PlanApplicationResponse(
        application_name="a",
        current_id="rev-0",
        changes=[revision_pb2.PlannedChange(name="keep_alive", current="60", planned="90")],
        env_id="env",
        environment_built=True,
        steps=["move the app at once"],
        problems=["no machine can run it"],
        kept_settings="a keeps max_concurrency 4",
    )
    plans: Any = stack.services.deploy_plans  # a fake
    [asked] = plans.asked
    assert asked.code.function == ("cloudpickle", b"code")
