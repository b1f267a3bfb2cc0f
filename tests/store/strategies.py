"""Arbitrary domain objects for round-trip properties, and plain ones for examples."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import strategies as st

from fal_server.core.accounts import Environment, Key, KeyScope, SealedSecret
from fal_server.core.apps import App, AuthMode
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, HealthMethod, Payload, Revision
from fal_server.core.runners import Desired, MetricsAccess, Runner, RunnerState
from fal_server.core.scaling import Scaling
from fal_server.ports import Store

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

# Text that every database can hold: no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
times = st.integers(-(10**14), 10**16).map(lambda number: START + timedelta(microseconds=number))
small = st.integers(0, 2**31 - 1)
positive = st.integers(1, 2**31 - 1)
ports = st.integers(1, 65_535)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
floats = st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, jsons, max_size=4)
text_tuples = st.lists(texts, max_size=3).map(tuple)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


scalings = st.builds(
    Scaling,
    keep_alive=st.integers(0, 100),
    min_concurrency=st.integers(0, 5),
    max_concurrency=st.integers(5, 50),
    concurrency_buffer=st.integers(0, 50),
    max_multiplexing=st.integers(1, 50),
    request_start_timeout=maybe(st.integers(0, 50)),
    machine_types=st.lists(st.sampled_from(["XS", "XL", "GPU-A"]), min_size=1, max_size=3).map(tuple),
    regions=text_tuples,
)
payloads = st.builds(Payload, method=texts, blob=texts)
health_checks = st.builds(
    HealthCheck,
    path=names.map(lambda name: f"/{name}"),
    start_period_seconds=small,
    timeout_seconds=positive,
    failure_threshold=positive,
    call_regularly=st.booleans(),
    allow_on_busy=st.booleans(),
    method=st.sampled_from(HealthMethod),
)
revisions = st.builds(
    Revision,
    account=st.just(LOCAL),
    revision_id=st.builds(lambda: uuid4().hex),
    app_name=texts,
    environment=texts,
    created_at=times,
    environments=st.lists(st.builds(EnvironmentSpec, kind=texts, configuration=json_objects), max_size=2).map(tuple),
    function=maybe(payloads),
    entrypoint=maybe(texts),
    setup=maybe(payloads),
    run_on_main_thread=st.booleans(),
    exposed_port=maybe(ports),
    metrics_port=maybe(ports),
    num_gpus=maybe(st.integers(0, 64)),
    files=st.lists(st.builds(AppFile, hash=hashes, relative_path=names), max_size=2).map(tuple),
    secret_names=maybe(text_tuples),
    scaling=scalings,
    health_check=maybe(health_checks),
    termination_grace_seconds=st.integers(0, 30),
    private_logs=st.booleans(),
    retry_config=maybe(texts),
    skip_retry_conditions=text_tuples,
    metadata=json_objects,
    source_code=maybe(texts),
)
apps = st.builds(
    App,
    account=st.just(LOCAL),
    name=names,
    environment=st.just("main"),
    revision_id=st.just("r1"),
    auth_mode=st.sampled_from(AuthMode),
    scaling=scalings,
    created_at=times,
    updated_at=times,
    next_revision_id=st.sampled_from([None, "r1", "r2"]),
    next_auth_mode=maybe(st.sampled_from(AuthMode)),
    next_scaling=maybe(scalings),
)
runners = st.builds(
    Runner,
    account=st.just(LOCAL),
    runner_id=names,
    app_name=texts,
    environment=texts,
    revision_id=texts,
    machine_type=texts,
    token=texts,
    created_at=times,
    state=st.sampled_from(RunnerState),
    desired=st.sampled_from(Desired),
    reason=texts,
    node=texts,
    handle=texts,
    host=texts,
    port=maybe(small),
    metrics_port=maybe(small),
    gated=st.booleans(),
    metrics_access=st.sampled_from(MetricsAccess),
    started_at=maybe(times),
    ready_at=maybe(times),
    draining_at=maybe(times),
    stopping_at=maybe(times),
    ended_at=maybe(times),
    not_before=maybe(times),
    exit_code=maybe(st.integers(-255, 255)),
    grace_seconds=small,
    kill=st.booleans(),
    replaces=maybe(texts),
    replaced_by=maybe(texts),
    replace_first=st.booleans(),
    ephemeral=st.booleans(),
)
keys = st.builds(
    Key,
    account=st.just(LOCAL),
    key_id=st.builds(lambda: uuid4().hex),
    secret_hash=texts,
    scope=st.sampled_from(KeyScope),
    alias=texts,
    created_at=times,
    preset=texts,
    permissions=text_tuples,
    revoked_at=maybe(times),
)
sealed_secrets = st.builds(
    SealedSecret,
    account=st.just(LOCAL),
    environment=st.just("main"),
    name=names,
    sealed=st.binary(max_size=50),
    created_at=times,
    default_exposed=maybe(st.booleans()),
)
environments = st.builds(
    Environment,
    account=st.just(LOCAL),
    name=st.builds(lambda: uuid4().hex),
    description=maybe(texts),
    is_default=st.booleans(),
    created_at=times,
)
log_entries = st.builds(
    LogEntry,
    account=st.just(LOCAL),
    runner_id=st.builds(lambda: uuid4().hex),
    sequence=st.integers(1, 2**60),
    timestamp=times,
    level=st.sampled_from(LogLevel),
    source=st.sampled_from(LogSource),
    message=texts,
    app_name=texts,
    revision_id=texts,
    request_id=maybe(texts),
)


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def revision(revision_id: str, *, app_name: str = "hello", environment: str = "main", at: float = 0) -> Revision:
    spec = EnvironmentSpec(kind="virtualenv", configuration={"requirements": ["six"], "registry": "hunter2-registry"})
    return Revision(
        account=LOCAL,
        revision_id=revision_id,
        app_name=app_name,
        environment=environment,
        created_at=later(at),
        environments=(spec,),
        function=None,
        entrypoint="app:run",
        scaling=Scaling(),
    )


async def add_revision(store: Store, revision: Revision) -> None:
    """Store a revision that no app uses any more."""
    account, name = revision.account, f"of-{revision.revision_id}"
    await store.register(revision, replace(app(name, revision.revision_id), account=account))
    await store.delete_app(account, name)


def app(name: str, revision_id: str, *, environment: str = "main") -> App:
    return App(
        account=LOCAL,
        name=name,
        environment=environment,
        revision_id=revision_id,
        auth_mode=AuthMode.PRIVATE,
        scaling=Scaling(),
        created_at=START,
        updated_at=START,
    )


def runner(runner_id: str, *, at: float = 0, ended_at: float | None = None) -> Runner:
    return Runner(
        account=LOCAL,
        runner_id=runner_id,
        app_name="hello",
        environment="main",
        revision_id="r1",
        machine_type="S",
        token="hunter2-token",
        created_at=later(at),
        state=RunnerState.PENDING if ended_at is None else RunnerState.TERMINATED,
        ended_at=None if ended_at is None else later(ended_at),
    )


def key(key_id: str, *, at: float = 0) -> Key:
    return Key(account=LOCAL, key_id=key_id, secret_hash="0" * 64, scope=KeyScope.API, alias="ci", created_at=later(at))


def secret(name: str, sealed: bytes = b"\x01sealed", *, environment: str = "main") -> SealedSecret:
    return SealedSecret(account=LOCAL, environment=environment, name=name, sealed=sealed, created_at=START)


def environment(name: str) -> Environment:
    return Environment(account=LOCAL, name=name, description=None, is_default=False, created_at=START)


def line(sequence: int, message: str = "", *, runner_id: str = "a", at: float | None = None, **more) -> LogEntry:
    return LogEntry(
        account=LOCAL,
        runner_id=runner_id,
        sequence=sequence,
        timestamp=later(sequence if at is None else at),
        level=LogLevel.INFO,
        source=more.pop("source", LogSource.STDOUT),
        message=message or f"line {sequence}",
        app_name=more.pop("app_name", "hello"),
        **more,
    )
