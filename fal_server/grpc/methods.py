"""Maps each method to its handler by the contract's descriptors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from fal_grpc.v1 import (
    account_pb2,
    app_pb2,
    audit_pb2,
    drain_pb2,
    environment_pb2,
    exec_pb2,
    key_pb2,
    log_pb2,
    notice_pb2,
    request_pb2,
    revision_pb2,
    run_pb2,
    runner_pb2,
    secret_pb2,
)
from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.tokens import Tokens
from fal_server.grpc import calls, compat
from fal_server.grpc.accounts import AccountHandlers
from fal_server.grpc.apps import AppHandlers
from fal_server.grpc.audit import AuditHandlers
from fal_server.grpc.drains import DrainHandlers
from fal_server.grpc.environments import EnvironmentHandlers
from fal_server.grpc.execs import ExecHandlers
from fal_server.grpc.keys import KeyHandlers
from fal_server.grpc.logs import LogHandlers
from fal_server.grpc.notices import NoticeHandlers
from fal_server.grpc.requests import RequestHandlers
from fal_server.grpc.revisions import RevisionHandlers
from fal_server.grpc.runners import RunnerHandlers
from fal_server.grpc.runs import RunHandlers
from fal_server.grpc.secrets import SecretHandlers
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.account_removal import AccountRemoval
from fal_server.services.accounts import Accounts
from fal_server.services.apps import Apps
from fal_server.services.audit import Audit
from fal_server.services.deploy_plans import DeployPlans
from fal_server.services.deploys import Deploys
from fal_server.services.drains import Drains
from fal_server.services.environments import Environments
from fal_server.services.execs import Execs
from fal_server.services.explain import Explainer
from fal_server.services.keys import Keys
from fal_server.services.logs import Logs
from fal_server.services.nodes import Nodes
from fal_server.services.notices import Notices
from fal_server.services.requests import Requests
from fal_server.services.revisions import Revisions
from fal_server.services.runners import Runners
from fal_server.services.runs import Runs
from fal_server.services.secrets import Secrets

_FILES = (
    account_pb2,
    app_pb2,
    audit_pb2,
    drain_pb2,
    environment_pb2,
    exec_pb2,
    key_pb2,
    log_pb2,
    notice_pb2,
    request_pb2,
    revision_pb2,
    run_pb2,
    runner_pb2,
    secret_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
)
# Every method by the paths of both its names.
METHODS: dict[str, MethodDescriptor] = {
    f"/{name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
    for name in (service.full_name, compat.FULL_NAME)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases that handlers call, and the authenticator of their callers."""

    authenticator: Authenticator
    teams: Teams
    tokens: Tokens
    recorder: Recorder
    audit: Audit
    accounts: Accounts
    removal: AccountRemoval
    quotas: AccountQuotas
    apps: Apps
    explainer: Explainer
    revisions: Revisions
    deploys: Deploys
    deploy_plans: DeployPlans
    drains: Drains
    notices: Notices
    requests: Requests
    runs: Runs
    runners: Runners
    nodes: Nodes
    execs: Execs
    keys: Keys
    secrets: Secrets
    environments: Environments
    logs: Logs


def generic_handlers(methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of every service, each method under both its names.

    Args:
        methods: every method by the path of its name in the contract.
    """
    everything: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    generic: list[grpc.GenericRpcHandler] = []
    for service in SERVICES:
        own = {method.name: methods[f"/{service.full_name}/{method.name}"] for method in service.methods}
        everything |= own
        generic.append(grpc.method_handlers_generic_handler(service.full_name, own))
    generic.append(grpc.method_handlers_generic_handler(compat.FULL_NAME, everything))
    return generic


def handlers_by_path(services: Services) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return each method's handler by its path in the contract.

    Raises:
        AttributeError: a method has no handler.
    """
    nouns: dict[str, object] = {
        "Accounts": AccountHandlers(services.accounts, services.removal, services.quotas),
        "Apps": AppHandlers(services.apps, services.explainer),
        "Audit": AuditHandlers(services.audit),
        "Drains": DrainHandlers(services.drains),
        "Environments": EnvironmentHandlers(services.environments),
        "Execs": ExecHandlers(services.execs),
        "Keys": KeyHandlers(services.keys, services.quotas, services.tokens),
        "Logs": LogHandlers(services.logs),
        "Notices": NoticeHandlers(services.notices),
        "Requests": RequestHandlers(services.requests),
        "Revisions": RevisionHandlers(services.revisions, services.deploys, services.deploy_plans),
        "Runners": RunnerHandlers(services.runners, services.nodes),
        "Runs": RunHandlers(services.runs),
        "Secrets": SecretHandlers(services.secrets),
    }
    return {
        f"/{service.full_name}/{method.name}": _method(method, nouns[service.name])
        for service in SERVICES
        for method in service.methods
    }


def _method(method: MethodDescriptor, noun: object) -> grpc.RpcMethodHandler[Any, Any]:
    handler = getattr(noun, _python_name(method.name))
    request_type = GetMessageClass(method.input_type)
    if method.client_streaming and not method.server_streaming:
        return calls.client_streaming(method.name, request_type, handler)
    if method.client_streaming:
        return calls.bidirectional(method.name, request_type, handler)
    if method.server_streaming:
        return calls.server_streaming(method.name, request_type, handler)
    return calls.unary(method.name, request_type, handler)


def _python_name(name: str) -> str:
    """Convert a method's name: ListAliasRunners -> list_alias_runners."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
