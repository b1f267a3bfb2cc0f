"""Conversion of messages. No field is missing, unknown numbers are harmless, and pickles are not read by default."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from fal_grpc.adapter import app, environment, key, log, revision, run, runner, secret, values
from fal_grpc.errors import ArgumentError
from fal_grpc.v1 import app_pb2, environment_pb2, key_pb2, log_pb2, revision_pb2, run_pb2, runner_pb2, secret_pb2

# message, its converter, {its field: the object's field} if the names differ, and fields left out on purpose.
CONVERTERS = [
    (app_pb2.AliasInfo, app.alias_info, {"scaling_delay_seconds": "scaling_delay"}, set()),
    (
        revision_pb2.ApplicationInfo,
        revision.application_info,
        {"scaling_delay_seconds": "scaling_delay", "application_name": "app_name"},
        set(),
    ),
    (runner_pb2.RunnerInfo, runner.runner_info, {}, set()),
    (environment_pb2.EnvironmentInfo, environment.environment_info, {}, set()),
    (run_pb2.ServiceURLs, run.service_urls, {}, set()),
    (run_pb2.SerializedObject, run.return_value, {"stringized_traceback": "traceback"}, set()),
    (run_pb2.HostedRunResult, run.run_result, {"status": "state"}, set()),
    (revision_pb2.BuildEnvironmentResult, revision.build_result, {"status": "state"}, set()),
    (revision_pb2.RegisterApplicationResult, revision.register_result, {"result": "application_id"}, set()),
    (log_pb2.FollowLogsResponse, log.batch, {}, set()),
    (log_pb2.RunnerEnded, log.runner_ended, {}, set()),
    (log_pb2.ListLogsResponse, log.page, {}, set()),
    (log_pb2.LogEntry, lambda message: log.entries([message])[0], {}, set()),
    (log_pb2.Log, lambda message: log.logs([message])[0], {}, set()),
    (
        key_pb2.UserKeyInfo,
        lambda message: key.key_infos(key_pb2.ListUserKeysResponse(user_keys=[message]))[0],
        {},
        set(),
    ),
    (key_pb2.CreateUserKeyResponse, key.new_key, {}, set()),
    (
        secret_pb2.Secret,
        lambda message: secret.secrets(secret_pb2.ListSecretsResponse(secrets=[message]))[0],
        {"created_time": "created_at"},
        set(),
    ),
]


def filled(message_class):
    """Return a message whose fields all differ from their defaults."""
    message = message_class()
    for number, field in enumerate(message.DESCRIPTOR.fields, start=2):
        name = field.name
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
            getattr(message, name).update({"number": number})
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
            getattr(message, name).CopyFrom(Timestamp(seconds=number * 1000))
        elif field.message_type is not None:
            from google.protobuf.message_factory import GetMessageClass

            inner = filled(GetMessageClass(field.message_type))
            getattr(message, name).extend([inner]) if field.is_repeated else getattr(message, name).CopyFrom(inner)
        else:
            value = {
                field.CPPTYPE_STRING: f"text-{number}" if field.type == field.TYPE_STRING else b"bytes",
                field.CPPTYPE_BOOL: True,
                field.CPPTYPE_ENUM: 1,
                field.CPPTYPE_FLOAT: number + 0.5,
            }.get(field.cpp_type, number)
            getattr(message, name).extend([value]) if field.is_repeated else setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message_class", "convert", "renamed", "left_out"), CONVERTERS, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_field_arrives(message_class, convert, renamed, left_out):
    full, empty = convert(filled(message_class)), convert(message_class())
    names = {field.name for field in dataclasses.fields(full)}
    for field in message_class.DESCRIPTOR.fields:
        if field.name in left_out:
            continue
        name = renamed.get(field.name, field.name)
        assert name in names, f"{message_class.DESCRIPTOR.name}.{field.name} is not mapped"
        assert getattr(full, name) != getattr(empty, name), f"{message_class.DESCRIPTOR.name}.{field.name} is lost"
    mapped = {renamed.get(field.name, field.name) for field in message_class.DESCRIPTOR.fields}
    assert names == mapped - left_out


@pytest.mark.parametrize(
    ("enum", "table", "unlike"),
    [
        (runner_pb2.RunnerInfo.State, runner.STATES, {"FAILURE_DELAY": "CRASH_BACKOFF"}),
        (runner_pb2.RunnerInfo.ReplaceState, runner.REPLACEMENTS, {}),
        (key_pb2.CreateUserKeyRequest.Scope, key.SCOPES, {}),
        (log_pb2.LogLevel, log.LEVELS, {}),
        (log_pb2.LogSource, log.SOURCES, {}),
        (run_pb2.HostedRunStatus.State, run._STATES, {}),
    ],
)
def test_the_tables_of_numbers_are_those_of_the_contract(enum, table, unlike):
    assert {number: unlike.get(name, name) for name, number in enum.items()} == {
        number: member.name for number, member in table.items()
    }


def test_the_other_enums_are_those_of_the_contract():
    assert {name: number for name, number in log_pb2.LogEntry.Source.items() if number} == {
        f"SOURCE_{origin.name}": number for number, origin in log.ORIGINS.items()
    }
    assert dict(app_pb2.ApplicationAuthMode.items()) == {mode.name: mode.number for mode in app.AuthMode}
    assert dict(app_pb2.DeploymentStrategy.items()) == {way.name: way.number for way in app.DeploymentStrategy}
    assert [name for name, _ in revision_pb2.RetryCondition.items()] == [c.name for c in revision.RetryCondition]
    methods = run_pb2.ApplicationHealthCheckConfig.Method
    assert [name for name, _ in methods.items()] == [method.name for method in run.HealthCheckMethod]
    assert {number: mode.upper() for number, mode in app._AUTH_MODES.items()} == {
        number: name for name, number in app_pb2.ApplicationAuthMode.items()
    }


def test_an_unknown_number_is_no_exception():
    unknown: Any = 99
    info = runner.runner_info(runner_pb2.RunnerInfo(state=unknown, replacement=unknown))
    assert (info.state, info.replacement) == (runner.RunnerState.UNKNOWN, runner.ReplaceState.UNKNOWN)
    assert app.alias_info(app_pb2.AliasInfo(auth_mode=unknown)).auth_mode == "unknown"
    (found,) = key.key_infos(key_pb2.ListUserKeysResponse(user_keys=[key_pb2.UserKeyInfo(scope=unknown)]))
    assert found.scope is None
    (line,) = log.logs([log_pb2.Log(level=unknown, source=unknown)])
    assert (line.level, line.source) == (log.LogLevel.UNKNOWN, log.LogSource.UNKNOWN)
    (entry,) = log.entries([log_pb2.LogEntry(level=unknown, source=unknown)])
    assert (entry.level, entry.source) == (log.LogLevel.UNKNOWN, log.LogOrigin.UNKNOWN)
    assert run.run_state(run_pb2.HostedRunStatus(state=unknown)) is run.RunState.UNKNOWN


def test_a_runner_is_what_the_published_client_knows():
    published = ["runner_id", "in_flight_requests", "expiration_countdown", "uptime", "external_metadata", "revision"]
    published += ["alias", "state", "machine_type", "replacement"]
    assert [field.name for field in dataclasses.fields(runner.RunnerInfo)][: len(published)] == published
    assert runner.RunnerState("FAILURE_DELAY") is runner.RunnerState.CRASH_BACKOFF
    assert runner.RunnerState.FAILURE_DELAY is runner.RunnerState.CRASH_BACKOFF
    assert runner.runner_info(runner_pb2.RunnerInfo()).state is runner.RunnerState.RUNNING, "as they read an unset one"
    given = runner_pb2.RunnerInfo(expiration_countdown=0, uptime=1.5)
    assert runner.runner_info(given).expiration_countdown == 0
    assert runner.runner_info(given).uptime == timedelta(seconds=1.5)


def test_a_runner_read_late_is_like_any_other_object():
    message = filled(runner_pb2.RunnerInfo)
    info = runner.runner_info(message)
    again = runner.RunnerInfo(**{field.name: getattr(info, field.name) for field in dataclasses.fields(info)})
    for other in (again, runner.runner_info(message), copy.copy(info), copy.deepcopy(info)):
        assert other == info
        assert hash(other) == hash(info)
        assert repr(other) == repr(info)
    assert pickle.loads(pickle.dumps(runner.runner_info(message))) == info
    assert dataclasses.asdict(runner.runner_info(message)) == dataclasses.asdict(again)
    assert dataclasses.replace(runner.runner_info(message), alias="b").alias == "b"
    assert json.loads(json.dumps(info.external_metadata)) == info.external_metadata
    with pytest.raises(AttributeError, match="nope"):
        _ = info.nope  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.alias = "x"  # type: ignore[misc]
    assert not hasattr(info, "__dict__")


def test_objects_with_secrets_do_not_show_them():
    made = key.new_key(key_pb2.CreateUserKeyResponse(key_id="shown", key_secret="hidden"))
    assert "hidden" not in repr(made)
    spec = revision.EnvironmentSpec(kind="container", configuration={"image": {"registries": {"r": "hidden"}}})
    assert "hidden" not in repr(spec)


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        (None, None),
        ([], None),
        (["all"], None),
        (["running", "all"], None),
        (["Running", "IDLE"], {"RUNNING", "IDLE"}),
        (["failure_delay"], {"CRASH_BACKOFF"}),
        (["crash_backoff"], {"CRASH_BACKOFF"}),
        (["terminated"], {"TERMINATED", "DEAD"}),
        ([runner.RunnerState.SETUP], {"SETUP"}),
    ],
)
def test_filters_by_state(states, wanted):
    found = runner.parse_states(states)
    assert found == (None if wanted is None else {runner.RunnerState[name] for name in wanted})


@pytest.mark.parametrize("states", ["running", ["walking"]])
def test_bad_filters_are_named(states):
    with pytest.raises(ArgumentError, match="state"):
        runner.parse_states(states)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), json_like, max_size=5))
def test_structures_survive_a_round_trip(given):
    wire = Struct.FromString(values.to_struct(given, argument="x").SerializeToString())
    assert values.from_struct(wire) == given


@pytest.mark.parametrize("odd", [{"a": b"x"}, {"a": {1, 2}}, {"a": float("nan")}, {1: "a"}, {"a": [{"b": object()}]}])
def test_what_is_not_json_is_named(odd):
    with pytest.raises(ArgumentError, match=r"^metadata"):
        values.to_struct(odd, argument="metadata")


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_times_survive_a_round_trip(time):
    if time.astimezone(UTC).year < 1970:
        return
    assert values.to_datetime(values.to_timestamp(time, argument="x")) == time.astimezone(UTC)


def test_a_time_that_no_datetime_can_hold():
    assert values.to_datetime(Timestamp(seconds=10**15)).year == 9999
    assert values.to_datetime(Timestamp(seconds=-(10**15))).year == 1
