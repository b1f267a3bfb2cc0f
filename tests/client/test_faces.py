"""The blocking and asyncio sides have the same names, signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from fal import rest, rest_aio
from fal.api import apps, client, connection, environments, keys, queue, runners, secrets
from fal.api.aio import apps as aio_apps
from fal.api.aio import client as aio_client
from fal.api.aio import connection as aio_connection
from fal.api.aio import environments as aio_environments
from fal.api.aio import keys as aio_keys
from fal.api.aio import queue as aio_queue
from fal.api.aio import runners as aio_runners
from fal.api.aio import secrets as aio_secrets
from fal_grpc import (
    aio,
    aio_calls,
    aio_exec_input,
    aio_exec_session,
    aio_shell_input,
    aio_shell_session,
    calls,
    controller,
    exec_input,
    exec_session,
    shell_input,
    shell_session,
)

PAIRS = [
    (controller.Controller, aio.AsyncController),
    (shell_session.ShellSession, aio_shell_session.AsyncShellSession),
    (shell_input.ShellInput, aio_shell_input.AsyncShellInput),
    (exec_input.ExecInput, aio_exec_input.AsyncExecInput),
    (exec_session.ExecSession, aio_exec_session.AsyncExecSession),
    (calls.Calls, aio_calls.AsyncCalls),
    (rest.Rest, rest_aio.AsyncRest),
    (client.SyncServerlessClient, aio_client.AsyncServerlessClient),
    (connection.ClientConnection, aio_connection.AsyncClientConnection),
    (apps.AppsNamespace, aio_apps.AsyncAppsNamespace),
    (runners.RunnersNamespace, aio_runners.AsyncRunnersNamespace),
    (keys.KeysNamespace, aio_keys.AsyncKeysNamespace),
    (secrets.SecretsNamespace, aio_secrets.AsyncSecretsNamespace),
    (queue.QueueNamespace, aio_queue.AsyncQueueNamespace),
    (environments.EnvironmentsNamespace, aio_environments.AsyncEnvironmentsNamespace),
]
# gRPC itself has different calls, and takes the requests of a stream in two ways.
ASIDE = {"session", "open", "upload"}


def public(cls: type) -> dict[str, object]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


def same(text: str) -> str:
    """Return an annotation without what asyncio adds."""
    text = re.sub(r"AsyncGenerator\[([\w.\[\]]+), None\]", r"Generator[\1, None, None]", text)
    text = text.replace("| AsyncIterable[bytes] ", "").replace("grpc.aio.", "grpc.").replace("Async", "")
    return text.replace("SyncServerlessClient", "ServerlessClient")


def function(member: Any) -> Any:
    return getattr(member, "fget", None) or getattr(member, "func", None) or inspect.unwrap(member)


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_names_are_equal(blocking, awaited):
    assert list(public(blocking)) == list(public(awaited))


@pytest.mark.parametrize(
    ("blocking", "awaited", "name"),
    [(one, other, name) for one, other in PAIRS for name in public(one) if name not in ASIDE],
)
def test_signatures_and_docstrings_are_equal(blocking, awaited, name):
    one, other = public(blocking)[name], public(awaited)[name]
    assert (other.__doc__ or "").replace("aclose", "close") == (one.__doc__ or "")
    if callable(one) or isinstance(one, property) or hasattr(one, "func"):
        assert one.__doc__ or blocking is calls.Calls, f"{blocking.__name__}.{name} has no docstring"
        wanted, found = inspect.signature(function(one)), inspect.signature(function(other))
        assert [same(str(parameter)) for parameter in found.parameters.values()] == [
            same(str(parameter)) for parameter in wanted.parameters.values()
        ]
        assert same(str(found.return_annotation)) == same(str(wanted.return_annotation))
