"""Targets, plaintext and TLS, retries, deadlines, message sizes."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fal_grpc import channel
from fal_grpc.channel import REPEATABLE, ChannelOptions, check_secure, service_config
from fal_grpc.credentials import KeyCredentials, NoCredentials, TokenCredentials
from fal_grpc.errors import (
    ConfigError,
    DeadlineExceededError,
    InsecureChannelError,
    UnavailableError,
    UnreachableError,
)
from fal_grpc.target import is_loopback, parse_target
from fal_grpc.v1 import key_pb2, runner_pb2
from tests.client.support import HANG_SECONDS, KEY, FakeController, aborting, serving
from tests.support.contract import SERVICES


@pytest.mark.parametrize(
    ("text", "host", "port", "plaintext"),
    [
        ("api.alpha.fal.ai", "api.alpha.fal.ai", 443, False),
        ("api.example.com:8443", "api.example.com", 8443, False),
        ("localhost:50051", "localhost", 50051, True),
        ("127.0.0.1:1", "127.0.0.1", 1, True),
        ("127.8.9.1", "127.8.9.1", 443, True),
        ("[::1]:70", "::1", 70, True),
        ("::1", "::1", 443, True),
        ("[2001:db8::1]:70", "2001:db8::1", 70, False),
        ("https://127.0.0.1:9", "127.0.0.1", 9, False),
        ("http://example.com:9", "example.com", 9, True),
        (" localhost:5/ ", "localhost", 5, True),
        ("LOCALHOST.", "localhost.", 443, True),
    ],
)
def test_targets(text, host, port, plaintext):
    target = parse_target(text)
    assert (target.host, target.port, target.plaintext) == (host, port, plaintext)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "host:", "host:x", "host:99999", "host:0", "ftp://host", "a b", "host/path", "u:p@host", "[::1", "h?q"],
)
def test_bad_targets_are_named(text):
    if text == "host:":
        assert parse_target(text).port == 443
        return
    with pytest.raises(ConfigError, match="FAL_GRPC_HOST"):
        parse_target(text, source="FAL_GRPC_HOST")


@given(st.text())
def test_any_text_is_a_target_or_a_clear_error(text):
    try:
        target = parse_target(text)
    except ConfigError:
        return
    assert 0 < target.port < 65536
    assert target.plaintext == is_loopback(target.host) or "://" in text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("api.alpha.fal.ai", "https://rest.alpha.fal.ai"),
        ("api.alpha.fal.ai:8443", "https://rest.alpha.fal.ai:8443"),
        ("127.0.0.1:50051", "http://127.0.0.1:50051"),
        ("[::1]:50051", "http://[::1]:50051"),
        ("rapid.example.com", "https://rapid.example.com"),
    ],
)
def test_the_one_port_rule(text, rest):
    assert parse_target(text).rest_url == rest


@pytest.mark.parametrize("credentials", [KEY, TokenCredentials("t")])
def test_no_credentials_in_plaintext_to_another_machine(credentials, side):
    with pytest.raises(InsecureChannelError, match=r"10\.0\.0\.1:80 is another machine"):
        side.call("http://10.0.0.1:80", "list_runners", credentials=credentials)
    check_secure(parse_target("http://10.0.0.1:80"), NoCredentials())
    check_secure(parse_target("10.0.0.1:80"), credentials)


def test_secrets_are_not_shown():
    for credentials in (KeyCredentials("shown", "hidden"), TokenCredentials("hidden", user_id="shown")):
        assert "hidden" not in repr(credentials) + str(credentials)
        assert "shown" in repr(credentials)


@pytest.mark.parametrize("text", ["", "nocolon", ":secret", "id:", "id:se\u00e9", "id:a\nb"])
def test_a_malformed_key_is_not_repeated(text):
    with pytest.raises(ConfigError, match="FAL_KEY") as caught:
        KeyCredentials.parse(text, source="FAL_KEY")
    assert not text or text not in str(caught.value)


def test_a_secret_may_hold_colons():
    assert KeyCredentials.parse(" id:a:b\n", source="x") == KeyCredentials("id", "a:b")


def test_the_repeatable_methods_exist_and_do_not_make_things():
    methods = {f"{service.name}/{method.name}" for service in SERVICES for method in service.methods}
    assert set(REPEATABLE) <= methods
    making = ("Create", "Delete", "Revoke", "Register", "Kill", "Rollout", "Run", "Shell", "SetSecret", "Stop")
    assert not [name for name in REPEATABLE if name.partition("/")[2].startswith(making)]
    assert {name for name in methods if "/List" in name or "/Get" in name} <= set(REPEATABLE)


def test_the_retry_policy_names_each_method_twice():
    (config,) = json.loads(service_config(4))["methodConfig"]
    assert len(config["name"]) == 2 * len(REPEATABLE)
    assert json.loads(service_config(1)) == {"methodConfig": []}


def test_a_read_is_retried(fake, side):
    fake.answers["ListRunners"] = aborting(
        grpc.StatusCode.UNAVAILABLE, "starting", times=2, then=runner_pb2.ListRunnersResponse()
    )
    assert side.call(fake.host, "list_runners") == []
    assert len(fake.calls) == 3


def test_a_read_is_not_retried_forever(fake, side):
    fake.answers["ListRunners"] = aborting(grpc.StatusCode.UNAVAILABLE, "starting")
    with pytest.raises(UnavailableError, match="starting"):
        side.call(fake.host, "list_runners")
    assert len(fake.calls) == ChannelOptions().attempts


def test_a_write_is_not_retried(fake, side):
    fake.answers["CreateUserKey"] = aborting(
        grpc.StatusCode.UNAVAILABLE, "starting", times=1, then=key_pb2.CreateUserKeyResponse()
    )
    with pytest.raises(UnavailableError, match="starting"):
        side.call(fake.host, "create_user_key", scope="api")
    assert len(fake.calls) == 1


def test_another_status_is_not_retried(fake, side):
    fake.answers["ListRunners"] = aborting(grpc.StatusCode.INTERNAL, "broken", times=1)
    with pytest.raises(Exception, match="broken"):
        side.call(fake.host, "list_runners")
    assert len(fake.calls) == 1


def test_a_unary_call_has_a_deadline(fake, side):
    released = threading.Event()

    def hang(request, context):
        released.wait(HANG_SECONDS)
        return runner_pb2.ListRunnersResponse()

    fake.answers["ListRunners"] = hang
    try:
        with pytest.raises(DeadlineExceededError, match="ListRunners: no answer from") as caught:
            side.call(fake.host, "list_runners", options=ChannelOptions(deadline_seconds=0.2))
    finally:
        released.set()
    assert isinstance(caught.value, TimeoutError)


def test_large_messages_pass(fake, side):
    blob = "x" * (6 * 1024 * 1024)
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(state_reason=blob)])
    (runner,) = side.call(fake.host, "list_runners")
    assert runner.state_reason == blob


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, grpc.ServerCredentials]:
    """Return a certificate for loopback that no machine trusts by default."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    path.write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return path, grpc.ssl_server_credentials([(secret, pem)])


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"])
def test_tls_with_a_private_authority(side, authority, monkeypatch, variable):
    path, server_credentials = authority
    monkeypatch.setenv(variable, str(path))
    with serving(FakeController(), server_credentials) as fake:
        assert side.call(f"https://{fake.host}", "list_runners") == []
        assert fake.calls[0].metadata["auth-key"] == KEY.secret


def test_tls_with_an_unknown_authority(side, authority):
    with serving(FakeController(), authority[1]) as fake:
        with pytest.raises(UnreachableError, match="TLS"):
            side.call(f"https://{fake.host}", "kill_runner", "r")
        assert fake.calls == []


def test_tls_towards_a_controller_without_it(fake, side):
    with pytest.raises(UnreachableError, match=r"it does not speak TLS\. Write http:// before the host"):
        side.call(f"https://{fake.host}", "kill_runner", "r")


_CALL = """
import os, sys
from fal.api import SyncServerlessClient, UnreachableError
try:
    SyncServerlessClient(host=sys.argv[1], api_key="a:b").runners.list()
except UnreachableError as error:
    print(error.cause, os.environ.get("GRPC_VERBOSITY"))
"""


@pytest.mark.parametrize(("verbosity", "said"), [(None, False), ("INFO", True)])
def test_grpc_itself_says_nothing_of_a_handshake_unless_asked(fake, monkeypatch, verbosity, said):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if verbosity is not None:
        monkeypatch.setenv("GRPC_VERBOSITY", verbosity)
    command = [sys.executable, "-c", _CALL, f"https://{fake.host}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"it does not speak TLS {verbosity}\n"
    assert ("ssl_transport_security" in done.stderr) == said, done.stderr


def test_certificates_that_cannot_be_read(side, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE names /nowhere/ca\.pem"):
        side.call("https://127.0.0.1:1", "list_runners")


def test_a_proxy_does_not_see_calls_to_this_machine(fake, side, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    assert side.call(fake.host, "list_runners") == []


def test_keepalive_and_sizes_are_set():
    found = dict(channel.arguments(parse_target("localhost"), ChannelOptions()))
    assert found["grpc.keepalive_time_ms"] == 30_000
    assert found["grpc.keepalive_timeout_ms"] == 10_000
    assert found["grpc.max_receive_message_length"] == found["grpc.max_send_message_length"] == 2**31 - 1
