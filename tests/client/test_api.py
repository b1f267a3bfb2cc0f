"""The SDK: names, namespaces, filters, keys, one connection, closing, teams, imports."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

import fal.api
from fal.api import (
    AppsNamespace,
    AsyncServerlessClient,
    EnvironmentsNamespace,
    KeyPreset,
    KeyScope,
    KeysNamespace,
    ReplaceState,
    RunnersNamespace,
    RunnerState,
    SecretsNamespace,
    SyncServerlessClient,
)
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import ArgumentError, ClientClosedError, ConfigError, MissingCredentialsError, NotFoundError
from fal_grpc.v1 import app_pb2, key_pb2, revision_pb2, runner_pb2
from tests.client.support import HANG_SECONDS, aborting
from tests.client.test_settings import token


@contextmanager
def answering(answer) -> Generator[tuple[str, list[tuple[str, str, dict[str, str]]]], None, None]:
    """Serve HTTP on loopback: `answer(method, path)` returns status, content type, body and perhaps headers."""
    asked: list[tuple[str, str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path, dict(self.headers)))
            status, kind, body, *more = answer(self.command, self.path)
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **dict(*more)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *args):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(fake):
    with SyncServerlessClient(fake.host, "id:hidden-secret") as found:
        yield found


def test_every_exported_name_is_there():
    assert len(set(fal.api.__all__)) == len(fal.api.__all__)
    assert set(fal.api._WHERE) == set(fal.api.__all__)
    for name in fal.api.__all__:
        assert getattr(fal.api, name) is not None
    with pytest.raises(AttributeError):
        _ = fal.api.nothing


# The published signatures: every name is there, of the same kind and with the same default.
PUBLISHED = {
    SyncServerlessClient: ["host=None", "api_key=None", "profile=None", "team=None"],
    AppsNamespace.list: ["self", "*filter=None", "*environment_name=None"],
    AppsNamespace.rollout: ["self", "app_name", "*force=False", "*environment_name=None"],
    AppsNamespace.runners: ["self", "app_name", "*since=None", "*state=None", "*environment_name=None"],
    AppsNamespace.scale: [
        "self",
        "app_name",
        *(
            f"*{name}=None"
            for name in [
                "keep_alive",
                "max_multiplexing",
                "max_concurrency",
                "min_concurrency",
                "concurrency_buffer",
                "concurrency_buffer_perc",
                "scaling_delay",
                "request_timeout",
                "request_start_timeout",
                "startup_timeout",
                "machine_types",
                "regions",
                "environment_name",
            ]
        ),
    ],
    RunnersNamespace.kill: ["self", "runner_id"],
    RunnersNamespace.list: ["self", "*since=None"],
    RunnersNamespace.stop: ["self", "runner_id", "replace_first=False"],
    KeysNamespace.create: ["self", "*scope=None", "*preset=None", "*permissions=None", "*description=None"],
    KeysNamespace.list: ["self"],
    KeysNamespace.revoke: ["self", "key_id"],
    SecretsNamespace.list: ["self", "environment_name=None"],
    SecretsNamespace.set: ["self", "name", "value", "environment_name=None", "default_exposed=None"],
    SecretsNamespace.unset: ["self", "name", "environment_name=None"],
    EnvironmentsNamespace.create: ["self", "name", "description=None"],
    EnvironmentsNamespace.list: ["self"],
    EnvironmentsNamespace.delete: ["self", "name"],
}


@pytest.mark.parametrize("member", PUBLISHED, ids=lambda member: member.__qualname__)
def test_the_published_signatures(member):
    found = []
    for parameter in inspect.signature(member).parameters.values():
        star = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        found.append(f"{star}{parameter.name}{default}")
    assert [name for name in found if name in PUBLISHED[member]] == PUBLISHED[member]


def test_apps(client, fake):
    fake.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[app_pb2.AliasInfo(alias=name, auth_mode=app_pb2.PUBLIC) for name in ("stable-a", "b")]
    )
    assert [app.alias for app in client.apps.list()] == ["stable-a", "b"]
    assert [app.alias for app in client.apps.list(filter="stable")] == ["stable-a"]
    assert client.apps.list()[0].auth_mode == "public"
    fake.answers["UpdateApplication"] = app_pb2.UpdateApplicationResult(alias_info=app_pb2.AliasInfo(alias="x"))
    assert client.apps.scale("x", max_concurrency=10, regions=["us-east"]).alias == "x"
    client.apps.rollout("x", force=True)
    fake.answers["DeleteAlias"] = app_pb2.DeleteAliasResult(revision="rev")
    assert client.apps.delete("x") == "rev"
    fake.answers["DeleteAlias"] = aborting(grpc.StatusCode.NOT_FOUND)
    assert client.apps.delete("x") is None
    fake.answers["ListApplications"] = revision_pb2.ListApplicationsResult(
        applications=[revision_pb2.ApplicationInfo(application_id="rev")]
    )
    assert client.apps.list_rev("x")[0].application_id == "rev"
    fake.answers["SetAlias"] = app_pb2.SetAliasResult(alias_info=app_pb2.AliasInfo(alias="x", revision="rev"))
    assert client.apps.set_rev("x", "rev", auth="private", strategy="rolling").revision == "rev"
    client.apps.delete_rev("rev")


def test_runners_by_state(client, fake):
    names = ["RUNNING", "IDLE", "FAILURE_DELAY", "DEAD"]
    runners = [runner_pb2.RunnerInfo(runner_id=name, state=runner_pb2.RunnerInfo.State.Value(name)) for name in names]
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=runners)
    fake.answers["ListAliasRunners"] = runner_pb2.ListAliasRunnersResponse(runners=runners)
    for listed in (client.runners.list, lambda **options: client.apps.runners("x", **options)):
        assert [runner.runner_id for runner in listed()] == names
        assert [runner.runner_id for runner in listed(state=["idle", "terminated"])] == ["IDLE", "DEAD"]
        assert [runner.runner_id for runner in listed(state=["crash_backoff"])] == ["FAILURE_DELAY"]
        with pytest.raises(ArgumentError, match="state"):
            listed(state=["asleep"])


def test_enums_print_their_word():
    members = [RunnerState.IDLE, RunnerState("FAILURE_DELAY"), ReplaceState.NO_REPLACE, KeyScope.API, KeyPreset.FULL]
    assert [str(member) for member in members] == ["IDLE", "CRASH_BACKOFF", "NO_REPLACE", "API", "FULL"]


@pytest.mark.parametrize("scope", [KeyScope.ADMIN, "admin", "ADMIN", "Admin"])
def test_a_key_by_scope(client, fake, scope):
    fake.answers["CreateUserKey"] = key_pb2.CreateUserKeyResponse(key_id="k", key_secret="s")
    assert client.keys.create(scope=scope) == ("k", "s")
    assert fake.calls[0].request.policy_preset == "FULL"


def test_a_runner_where_only_lists_are_served(client, fake):
    fake.answers["GetRunner"] = aborting(grpc.StatusCode.UNIMPLEMENTED)
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(runner_id="r1")])
    assert client.runners.get("r1").runner_id == "r1"
    assert fake.calls[-1].request.HasField("start_time")
    with pytest.raises(NotFoundError, match="no runner r2"):
        client.runners.get("r2")


async def test_the_same_through_asyncio(fake):
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(runner_id="r1")])
    fake.answers["GetRunner"] = aborting(grpc.StatusCode.UNIMPLEMENTED)
    fake.answers["CreateUserKey"] = key_pb2.CreateUserKeyResponse(key_id="k", key_secret="s")
    async with asyncio.timeout(HANG_SECONDS), AsyncServerlessClient(fake.host, "id:s") as client:
        assert [runner.runner_id for runner in await client.runners.list(state=["running"])] == ["r1"]
        assert (await client.runners.get("r1")).runner_id == "r1"
        with pytest.raises(NotFoundError):
            await client.runners.get("r2")
        assert await client.apps.list(filter="x") == []
        assert await client.apps.runners("x") == []
        assert await client.apps.list_rev() == []
        assert await client.apps.delete("x") == ""
        await client.apps.scale("x", keep_alive=1)
        await client.apps.rollout("x")
        await client.apps.set_rev("x", "rev")
        await client.apps.delete_rev("rev")
        await client.runners.stop("r1", True)
        await client.runners.kill("r1")
        assert await client.keys.create(scope="api") == ("k", "s")
        assert await client.keys.list() == []
        await client.keys.revoke("k")
        await client.secrets.set("N", "v", "staging", False)
        assert await client.secrets.list() == []
        await client.secrets.unset("N")
        assert (await client.environments.create("e", "d")).name == ""
        assert await client.environments.list() == []
        await client.environments.delete("e")
    with pytest.raises(ClientClosedError):
        await client.runners.list()


def test_secrets_and_environments(client, fake):
    client.secrets.set("N", "v", default_exposed=True)
    client.secrets.unset("N", "staging")
    assert client.secrets.list("staging") == []
    client.environments.create("e", description="d")
    assert client.environments.list() == []
    client.environments.delete("e")
    client.keys.revoke("k")
    assert client.keys.list() == []
    with pytest.raises(ArgumentError, match="colon"):
        client.keys.revoke("id:hidden-secret")


def test_exec(client, fake):
    fake.answers["ShellRunner"] = [
        runner_pb2.ShellRunnerOutput(data=b"out"),
        runner_pb2.ShellRunnerOutput(data=b"err", stream=2),
        runner_pb2.ShellRunnerOutput(data=b"put", stream=1),
        runner_pb2.ShellRunnerOutput(exit_code=7),
    ]
    found = client.runners.exec("r1", ["ls"], stdin=b"x")
    assert (found.exit_code, found.stdout, found.stderr, found.text) == (7, b"output", b"err", "output")
    with client.runners.exec_stream("r1", ["ls"]) as session:
        assert [(output.stream, output.data) for output in session] == [(1, b"out"), (2, b"err"), (1, b"put")]
        assert session.exit_code == 7
    with client.runners.shell("r1") as session:
        assert session.wait() == 7
    with pytest.raises(ArgumentError, match="command"):
        client.runners.exec("r1", [])


async def test_exec_through_asyncio(fake):
    fake.answers["ShellRunner"] = [
        runner_pb2.ShellRunnerOutput(data=b"out"),
        runner_pb2.ShellRunnerOutput(data=b"err", stream=2),
        runner_pb2.ShellRunnerOutput(exit_code=7),
    ]
    async with asyncio.timeout(HANG_SECONDS), AsyncServerlessClient(fake.host, "id:s") as client:
        found = await client.runners.exec("r1", ["ls"], stdin=b"x")
        assert (found.exit_code, found.stdout, found.stderr) == (7, b"out", b"err")
        async with await client.runners.shell("r1") as session:
            assert await session.wait() == 7


def test_one_connection_for_all_threads_and_namespaces(fake):
    peers = set()

    def answer(request, context):
        peers.add(context.peer())
        return app_pb2.ListAliasesResult()

    fake.answers["ListAliases"] = answer
    with SyncServerlessClient(fake.host, "id:s") as client:
        threads = [threading.Thread(target=lambda: [client.apps.list() for _ in range(10)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_SECONDS)
    assert len(fake.calls) == 80
    assert len(peers) == 1


def test_a_closed_client_says_so(fake):
    client = SyncServerlessClient(fake.host, "id:s")
    client.runners.list()
    client.close()
    client.close()
    with pytest.raises(ClientClosedError, match="closed"):
        client.runners.list()
    unused = SyncServerlessClient(fake.host, "id:s")
    unused.close()
    with pytest.raises(ClientClosedError, match="closed"):
        unused.keys.list()


def test_its_repr_has_no_secret(fake):
    client = SyncServerlessClient(fake.host, "key-id:hidden-secret", team="crew")
    assert "hidden-secret" not in repr(client) + repr(client.settings) + repr(client._credentials)
    assert client._grpc_host == fake.host
    assert client._rest_url == f"http://{fake.host}"
    assert isinstance(client._credentials, KeyCredentials)
    assert client._credentials.key_id == "key-id"
    client.close()


def test_settings_are_resolved_at_the_first_call():
    client = SyncServerlessClient(profile="absent")
    with pytest.raises(ConfigError, match="absent"):
        client.runners.list()
    with pytest.raises(MissingCredentialsError, match="fal up"):
        SyncServerlessClient().runners.list()


@pytest.mark.parametrize("api_key", ["nocolon", ":", "id:"])
def test_a_malformed_key_is_a_value_error(api_key):
    with pytest.raises(ValueError, match="api_key must be in 'KEY_ID:KEY_SECRET' format"):
        SyncServerlessClient("localhost", api_key).runners.list()


def test_a_team_with_a_key_of_another_account_is_an_error(fake, monkeypatch):
    mine = json.dumps({"nickname": "me", "user_id": "x|1"}).encode()
    with answering(lambda method, path: (200, "application/json", mine)) as (rest_host, asked):
        monkeypatch.setenv("FAL_REST_HOST", rest_host)
        with (
            SyncServerlessClient(fake.host, "id:s", team="crew") as client,
            pytest.raises(ConfigError, match="The key belongs to me, not to crew"),
        ):
            client.runners.list()
        assert fake.calls == []
        with SyncServerlessClient(fake.host, "id:s", team="ME") as client:
            client.runners.list()
        assert [(method, path) for method, path, _ in asked] == [("GET", "/users/current")] * 2
    assert "fal-user-id" not in fake.calls[0].metadata


TEAMS = json.dumps([{"nickname": "Crew", "user_id": "org|7"}, {"nickname": "me", "user_id": "x|1"}]).encode()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_team_with_a_login_token(fake, home, monkeypatch, asynchronous):
    (home / ".fal").mkdir()
    (home / ".fal" / "auth0_token").write_text(f"refresh\n{token()}")

    async def through_asyncio(host, team):
        async with AsyncServerlessClient(host, team=team) as client:
            await client.runners.list()

    def blocking(host, team):
        with SyncServerlessClient(host, team=team) as client:
            client.runners.list()
            client.runners.list()

    run = (lambda host, team: asyncio.run(through_asyncio(host, team))) if asynchronous else blocking
    with answering(lambda method, path: (200, "application/json", TEAMS)) as (rest_host, asked):
        monkeypatch.setenv("FAL_REST_HOST", rest_host)
        run(fake.host, "crew")
        assert fake.calls[0].metadata["fal-user-id"] == "org|7"
        assert fake.calls[0].metadata["authorization"].startswith("Bearer e30.")
        assert [(method, path) for method, path, _ in asked] == [("GET", "/users/teams")]
        with pytest.raises(ConfigError, match=r"Team nope not found\. This login belongs to: Crew, me"):
            run(fake.host, "nope")


def test_what_importing_it_costs():
    code = (
        "import sys, fal, fal.api, fal.exceptions\n"
        "from fal.api import SyncServerlessClient, AsyncServerlessClient, KeyScope, RunnerInfo\n"
        "client = SyncServerlessClient(); client.runners; client.keys\n"
        "heavy = 'fastapi pydantic httpx rich isolate isolate_proto yaml cloudpickle grpc google.protobuf tomlkit'\n"
        "print([name for name in heavy.split() if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_a_call_loads_its_own_noun_alone(fake):
    code = (
        "import sys; from fal.api import SyncServerlessClient\n"
        "with SyncServerlessClient(api_key='id:secret') as client: client.runners.list()\n"
        "names = ['fal.api.apps', 'fal.queue', 'importlib.metadata']\n"
        "names += [f'fal_grpc.adapter.{noun}' for noun in ('key', 'revision', 'run', 'scaling', 'secret')]\n"
        "print([name for name in names if name in sys.modules])"
    )
    environment = {**os.environ, "FAL_GRPC_HOST": fake.host}
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "[]"


def test_a_read_is_fast_enough_for_thousands_of_runners(client, fake):
    """Check without a clock: no field is converted before it is read."""
    message = runner_pb2.RunnerInfo(runner_id="r")
    message.external_metadata.update({"leases": []})
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[message])
    (runner,) = client.runners.list()
    slots = type(runner).__dict__
    for name in ("runner_id", "external_metadata", "created_at"):
        with pytest.raises(AttributeError):
            slots[name].__get__(runner)
    assert runner.external_metadata == {"leases": []}
    assert slots["external_metadata"].__get__(runner) == {"leases": []}


def test_a_list_with_ended_runners_is_read_page_by_page(client, fake):
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def made(number: int) -> runner_pb2.RunnerInfo:
        found = runner_pb2.RunnerInfo(runner_id=f"r{number}")
        found.created_at.FromDatetime(at + timedelta(seconds=number))
        return found

    def answer(request, _context):
        if not request.HasField("page_size"):
            return runner_pb2.ListRunnersResponse(runners=[made(9)])
        pages = {"": ([2, 1], "2"), "2": ([3], "3"), "3": ([0], None)}
        numbers, token = pages[request.page_token]
        return runner_pb2.ListRunnersResponse(runners=map(made, numbers), next_page_token=token)

    fake.answers["ListRunners"] = answer
    listed = client.runners.list(since=at)
    assert [runner.runner_id for runner in listed] == ["r0", "r1", "r2", "r3"]
    assert [runner.runner_id for runner in client.runners.list()] == ["r9"]
