"""Handlers for revisions, which the wire calls applications."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from fal_grpc.v1 import revision_pb2 as pb
from fal_grpc.v1 import run_pb2
from fal_server.core.names import MAIN
from fal_server.core.revisions import Json
from fal_server.grpc.apps import put_settings
from fal_server.grpc.caller import Caller
from fal_server.grpc.code import build_request, deploy_request
from fal_server.grpc.convert import timestamp
from fal_server.grpc.lines import short_line
from fal_server.grpc.lists import serialized
from fal_server.grpc.streams import closing
from fal_server.services.deploy_plans import DeployPlans
from fal_server.services.deploys import Deploys
from fal_server.services.revisions import Revisions
from fal_server.services.views import Built, Deployed, Registered, RevisionView, Urls

SOURCE_METHOD = "fal_source"
"""An app as modules, loaded by `fal_runner/worker`."""


class RevisionHandlers:
    """fal.v1.Revisions."""

    def __init__(self, revisions: Revisions, deploys: Deploys, plans: DeployPlans) -> None:
        self._revisions = revisions
        self._deploys = deploys
        self._plans = plans

    async def build_environment(
        self, request: pb.BuildEnvironmentRequest, caller: Caller
    ) -> AsyncGenerator[pb.BuildEnvironmentResult]:
        """Build an environment; every message has its id."""
        code = build_request(request, caller.scope.account)
        env_id = code.environments[0].env_id
        async with closing(self._deploys.build(caller.scope, code)) as steps:
            async for step in steps:
                if isinstance(step, Built):
                    yield pb.BuildEnvironmentResult(
                        env_id=step.env_id,
                        status=run_pb2.HostedRunStatus(state=run_pb2.HostedRunStatus.SUCCESS),
                        callable_methods=[SOURCE_METHOD],
                    )
                    return
                yield pb.BuildEnvironmentResult(env_id=env_id, logs=[short_line(step)])

    async def register_application(
        self, request: pb.RegisterApplicationRequest, caller: Caller
    ) -> AsyncGenerator[pb.RegisterApplicationResult]:
        """Deploy. The addresses are in the message of the result, because published clients read nothing after it."""
        async with closing(self._deploys.deploy(caller.scope, deploy_request(request, caller.scope.account))) as steps:
            async for step in steps:
                if isinstance(step, Deployed):
                    yield pb.RegisterApplicationResult(
                        result=pb.RegisterApplicationResultType(application_id=step.revision_id),
                        service_urls=service_urls(step.urls),
                        env_id=step.env_id,
                    )
                    return
                if isinstance(step, Registered):
                    yield pb.RegisterApplicationResult(
                        registered=pb.RegisteredRevision(
                            application_id=step.revision_id,
                            application_name=step.app_name,
                            previous_id=step.previous_id,
                        )
                    )
                else:
                    yield pb.RegisterApplicationResult(logs=[short_line(step)])

    async def plan_application(self, request: pb.PlanApplicationRequest, caller: Caller) -> pb.PlanApplicationResponse:
        plan = await self._plans.plan(caller.scope, deploy_request(request.application, caller.scope.account))
        return pb.PlanApplicationResponse(
            application_name=plan.app_name,
            current_id=plan.revision_id,
            changes=[
                pb.PlannedChange(name=change.name, current=change.current, planned=change.planned)
                for change in plan.changes
            ],
            env_id=plan.env_id,
            environment_built=plan.environment_built,
            steps=plan.steps,
            problems=plan.problems,
            kept_settings=plan.kept,
        )

    async def list_applications(self, request: pb.ListApplicationsRequest, caller: Caller) -> bytes:
        views = await self._revisions.list(
            caller.scope, request.application_name or None, request.environment_name or MAIN
        )
        return await serialized(views, application_info, lambda infos: pb.ListApplicationsResult(applications=infos))

    async def delete_application(
        self, request: pb.DeleteApplicationRequest, caller: Caller
    ) -> pb.DeleteApplicationResult:
        await self._revisions.delete(caller.scope, request.application_id)
        return pb.DeleteApplicationResult()


def application_info(view: RevisionView) -> pb.ApplicationInfo:
    """Return a revision for the wire."""
    revision = view.revision
    info = pb.ApplicationInfo(
        application_id=revision.revision_id,
        created_at=timestamp(revision.created_at),
        active_runners=view.active_runners,
        environment_name=revision.environment,
        application_name=revision.app_name,
        current=view.current,
        message=_text(revision.metadata.get("message")),
        annotations=_annotations(revision.metadata.get("annotations")),
    )
    put_settings(info, revision.scaling)
    return info


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _annotations(value: Json) -> list[pb.Annotation]:
    items = value.items() if isinstance(value, Mapping) else ()
    return [pb.Annotation(name=name, value=text) for name, text in items if isinstance(text, str)]


def service_urls(urls: Urls) -> run_pb2.ServiceURLs:
    """Return the addresses of an app for the wire."""
    return run_pb2.ServiceURLs(playground=urls.playground, run=urls.run, queue=urls.queue, ws=urls.ws, log=urls.log)
