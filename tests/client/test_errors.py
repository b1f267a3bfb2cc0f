"""Failed calls become errors of one tree. They say what to do and never show a secret."""

from __future__ import annotations

import socket
import traceback
from http import HTTPStatus
from types import SimpleNamespace
from typing import cast

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fal import exceptions
from fal_grpc import errors
from fal_grpc.adapter.log import LogQuery
from fal_grpc.channel import ChannelOptions
from tests.client.support import KEY, aborting


def test_every_status_code_has_exactly_one_error():
    codes = {code.name for code in grpc.StatusCode} - {"OK"}
    assert set(errors.BY_CODE) == codes
    assert len({*errors.BY_CODE.values()}) == len(codes)
    assert all(kind.code == code for code, kind in errors.BY_CODE.items())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_becomes_its_error_on_both_sides(fake, side, code):
    fake.answers["KillRunner"] = aborting(code, "Runner r1 is odd.")
    with pytest.raises(errors.BY_CODE[code.name]) as caught:
        side.call(fake.host, "kill_runner", "r1")
    error = caught.value
    assert error.code == code.name
    assert error.details == "Runner r1 is odd."
    assert error.method == "KillRunner"
    assert error.target == fake.host
    assert error.__cause__ is None
    assert not isinstance(error, grpc.RpcError)
    assert KEY.secret not in repr(error) + str(error) + repr(vars(error))


def test_a_stream_that_fails_raises_after_what_arrived(fake, side):
    def answer(request, context):
        yield fake_batch("a")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")

    from fal_grpc.v1 import log_pb2

    def fake_batch(text):
        return log_pb2.FollowLogsResponse(entries=[log_pb2.LogEntry(message=text)], cursor="c")

    fake.answers["FollowLogs"] = answer
    with pytest.raises(errors.ResourceExhaustedError, match="too many streams"):
        side.call(fake.host, "follow_logs", LogQuery(runner_id="r1"))


def test_google_rpc_details_become_attributes(fake, side):
    packed = []
    for detail in (
        error_details_pb2.ErrorInfo(reason="NAME_TAKEN", domain="fal", metadata={"name": "x"}),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="name", description="is taken")]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)),
    ):
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no", details=packed)

    def answer(request, context):
        context.set_trailing_metadata(
            (("grpc-status-details-bin", status.SerializeToString()), ("x-request-id", "req-1"))
        )
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name: is taken")

    fake.answers["CreateEnvironment"] = answer
    with pytest.raises(errors.InvalidArgumentError) as caught:
        side.call(fake.host, "create_environment", "x")
    error = caught.value
    assert (error.reason, error.domain, error.metadata) == ("NAME_TAKEN", "fal", {"name": "x"})
    assert error.field_violations == (errors.FieldViolation(field="name", description="is taken"),)
    assert error.retry_delay_seconds == 2.5
    assert error.request_id == "req-1"
    assert isinstance(error, ValueError)


def test_broken_details_do_not_hide_the_status(fake, side):
    def answer(request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such runner")

    fake.answers["KillRunner"] = answer
    with pytest.raises(errors.NotFoundError, match="no such runner"):
        side.call(fake.host, "kill_runner", "r1")


def test_a_controller_that_is_not_there(side):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.UnreachableError) as caught:
            side.call(host, "kill_runner", "r1")
    assert str(caught.value) == (
        f"Could not reach the controller at {host}: connection refused. "
        "Is it running? `fal up` starts one here; the address is from the argument host."
    )
    assert isinstance(caught.value, errors.UnavailableError)


def test_a_controller_of_another_directory_is_started_there(side):
    options = ChannelOptions(start_command="fal up -d --state-dir /srv/fal")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.UnreachableError, match="`fal up -d --state-dir /srv/fal` starts it;"):
            side.call(host, "kill_runner", "r1", options=options)


def test_a_call_that_the_controller_does_not_serve(fake, side):
    fake.answers["GetRunner"] = aborting(grpc.StatusCode.UNIMPLEMENTED, "")
    with pytest.raises(errors.UnimplementedError, match=f"{fake.host} does not serve GetRunner"):
        side.call(fake.host, "get_runner", "r1")


@pytest.mark.parametrize(
    ("code", "message"),
    [("UNAUTHENTICATED", "FAL_KEY"), ("PERMISSION_DENIED", "fal keys create"), ("UNAVAILABLE", "not available now")],
)
def test_a_message_says_what_to_do(fake, side, code, message):
    fake.answers["KillRunner"] = aborting(grpc.StatusCode[code], "said so")
    with pytest.raises(errors.CallError, match=message):
        side.call(fake.host, "kill_runner", "r1")


def test_the_published_names_catch_everything():
    assert exceptions.FalServerlessException is errors.FalError
    assert issubclass(errors.CallError, exceptions.FalServerlessError)
    assert issubclass(errors.KeyRejectedError, exceptions.UnauthenticatedException)
    assert issubclass(errors.MissingCredentialsError, exceptions.UnauthenticatedException)
    for name in exceptions.__all__:
        found = getattr(exceptions, name)
        if isinstance(found, type) and issubclass(found, BaseException):
            assert issubclass(found, exceptions.FalServerlessException), name


def test_an_apps_own_errors_say_what_they_were_given():
    error = exceptions.AppException(message="teapot", status_code=418)
    assert (str(error), error.status_code) == ("teapot", 418)
    assert isinstance(exceptions.CUDAOutOfMemoryException(), exceptions.GPUException)
    assert exceptions.FieldException("size", "too big").to_pydantic_format() == {
        "detail": [{"loc": ["body", "size"], "msg": "too big", "type": "value_error"}]
    }


def test_messages_of_our_own_controllers_are_not_changed(fake, side):
    item = any_pb2.Any()
    item.Pack(error_details_pb2.ErrorInfo(reason="UNAUTHENTICATED", domain=errors.DOMAIN))
    status = status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message="no", details=[item])

    def answer(request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key is unknown: check FAL_KEY")

    fake.answers["KillRunner"] = answer
    with pytest.raises(errors.KeyRejectedError) as caught:
        side.call(fake.host, "kill_runner", "r1")
    assert str(caught.value) == "the key is unknown: check FAL_KEY"


def test_tracebacks_name_the_module_that_users_import_from():
    import fal.api

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.FalError):
            assert kind.__module__ == "fal.api"
            assert getattr(fal.api, name) is kind
    assert "fal.api.NotFoundError: gone" in "".join(traceback.format_exception(errors.NotFoundError("gone")))


@pytest.mark.parametrize("status", [status for status in HTTPStatus if status >= 400])
def test_every_http_status_has_an_error(status):
    unknown = {HTTPStatus.IM_A_TEAPOT}  # and those that only proxies and WebDAV send
    unknown |= {status for status in HTTPStatus if status in (407, 421, 451, 506, 508, 510, 511)}
    assert (status in errors.BY_HTTP_STATUS) == (status not in unknown)


def test_a_name_that_does_not_resolve_wants_no_retry(fake):
    details = "errors resolving api.x:443: [field:hostname lookup error:address lookup failed for api.x]"
    failure = SimpleNamespace(
        code=lambda: grpc.StatusCode.UNAVAILABLE, details=lambda: details, trailing_metadata=lambda: ()
    )
    error = errors.from_rpc(
        cast("errors.RpcFailure", failure),
        method="ListRunners",
        target="api.x:443",
        local=False,
        start="fal up",
        named_by="FAL_HOST",
    )
    assert isinstance(error, errors.UnreachableError)
    assert str(error).startswith("Could not reach the controller at api.x:443: the name cannot be resolved. Check the ")
    assert "the address, which is from FAL_HOST" in str(error)
