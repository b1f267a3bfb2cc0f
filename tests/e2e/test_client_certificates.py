"""A controller that requires client certificates admits nobody without one. That holds over any protocol."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from fal_grpc.v1.key_pb2 import GetCallerRequest
from fal_grpc.v1.key_pb2_grpc import KeysStub
from tests.support.certificates import Authority
from tests.support.controller import BIN, Controller, running

REASON = "this controller lets in only who shows a client certificate by its authority"


@dataclass(frozen=True, kw_only=True)
class Door:
    """A controller, and two certificates. It trusts one, and the other is by another authority."""

    controller: Controller
    trusted: tuple[Path, Path]
    foreign: tuple[Path, Path]

    @property
    def roots(self) -> Path:
        return self.controller.state_dir / "tls" / "ca.pem"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.controller.port}"

    def fal(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.controller.environment,
            "FAL_GRPC_HOST": self.url,
            "SSL_CERT_FILE": str(self.roots),
            **variables,
        }
        return subprocess.run(
            [str(BIN / "fal"), *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def context(self, files: tuple[Path, Path] | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.roots))
        if files is not None:
            context.load_cert_chain(*files)
        return context

    def get(self, path: str, files: tuple[Path, Path] | None) -> tuple[int, str]:
        request = urllib.request.Request(f"{self.url}{path}")
        request.add_header("Authorization", f"Key {self.controller.key}")
        try:
            with urllib.request.urlopen(request, context=self.context(files), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def caller(self, files: tuple[Path, Path] | None) -> str:
        """Ask by gRPC who calls; return the key's id."""
        own = (None, None) if files is None else (files[1].read_bytes(), files[0].read_bytes())
        key_id, secret = self.controller.key.split(":")
        metadata = (("auth-key-id", key_id), ("auth-key", secret))
        credentials = grpc.ssl_channel_credentials(self.roots.read_bytes(), *own)
        with grpc.secure_channel(f"localhost:{self.controller.port}", credentials) as channel:
            return KeysStub(channel).GetCaller(GetCallerRequest(), metadata=metadata, timeout=60).key_id


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("certificates")
    ours, another = Authority(folder, "ours"), Authority(folder, "another")
    arguments = ("--tls", "--tls-client-ca", str(ours.file))
    with running(tmp_path_factory.mktemp("asking") / "state", *arguments) as controller:
        yield Door(controller=controller, trusted=ours.issue("ann"), foreign=another.issue("mallory"))


def test_who_has_a_certificate_gets_in_by_both_doors(door: Door) -> None:
    assert door.get("/users/current", door.trusted)[0] == 200
    assert door.caller(door.trusted) == door.controller.key.partition(":")[0]
    # It still needs a key.
    request = urllib.request.Request(f"{door.url}/users/current")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=door.context(door.trusted), timeout=60)
    with refused.value:
        assert refused.value.code == 401


@pytest.mark.parametrize("path", ["/health", "/users/current", "/ui/", "/fal.v1.Keys/GetCaller", "/local/none/"])
def test_http_without_one_is_refused_in_words(door: Door, path: str) -> None:
    status, text = door.get(path, None)
    assert status == 403
    assert REASON in json.loads(text)["detail"]


def test_grpc_without_one_is_refused_in_words(door: Door) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        door.caller(None)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert REASON in refused.value.details()  # type: ignore[attr-defined]


def test_a_certificate_by_another_authority_ends_the_handshake(door: Door) -> None:
    with pytest.raises((urllib.error.URLError, OSError)):
        door.get("/health", door.foreign)
    with pytest.raises(grpc.RpcError) as refused:
        door.caller(door.foreign)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_command_line_presents_one(door: Door) -> None:
    files = {"FAL_CLIENT_CERT_FILE": str(door.trusted[0]), "FAL_CLIENT_KEY_FILE": str(door.trusted[1])}
    for command in (("apps", "list"), ("files", "list", "/data")):
        refused = door.fal(*command)
        assert (refused.returncode, REASON in refused.stderr) == (1, True), refused.stderr
        assert door.fal(*command, **files).returncode == 0, command


def test_a_profile_names_one(door: Door) -> None:
    config = Path(door.controller.environment["FAL_CONFIG_PATH"]).with_name("config.fal-grpc.toml")
    both = config.with_name("both.pem")
    both.write_bytes(door.trusted[0].read_bytes() + door.trusted[1].read_bytes())
    config.write_text(
        f'[asking]\nhost = "{door.url}"\nkey = "{door.controller.key}"\nca_file = "{door.roots}"\n'
        f'client_cert_file = "{both}"\n'
    )
    try:
        done = door.fal("apps", "list", FAL_PROFILE="asking", FAL_GRPC_HOST="", FAL_KEY="", SSL_CERT_FILE="")
        assert done.returncode == 0, done.stderr
    finally:
        config.unlink()


def test_what_is_no_certificate_is_said_before_anything_is_sent(door: Door) -> None:
    wrong = {"FAL_CLIENT_CERT_FILE": str(door.trusted[0]), "FAL_CLIENT_KEY_FILE": str(door.foreign[1])}
    for command in (("apps", "list"), ("files", "list", "/data")):
        assert "are not a certificate and its key" in door.fal(*command, **wrong).stderr
    missing = door.fal("apps", "list", FAL_CLIENT_CERT_FILE="/none")
    assert "/none, which is not a readable file" in missing.stderr
    alone = door.fal("apps", "list", FAL_CLIENT_KEY_FILE="/none")
    assert "without FAL_CLIENT_CERT_FILE" in alone.stderr


def test_the_doctor_says_what_is_missing(door: Door) -> None:
    def checks(**variables: str) -> dict[str, dict[str, str]]:
        return {each["name"]: each for each in json.loads(door.fal("doctor", "--json", **variables).stdout)["checks"]}

    files = {"FAL_CLIENT_CERT_FILE": str(door.trusted[0]), "FAL_CLIENT_KEY_FILE": str(door.trusted[1])}
    foreign = {"FAL_CLIENT_CERT_FILE": str(door.foreign[0]), "FAL_CLIENT_KEY_FILE": str(door.foreign[1])}
    good = checks(**files)["client certificate"]
    assert (good["status"], "ann.pem" in good["detail"]) == ("ok", True), good
    none = checks()["client certificate"]
    assert (none["status"], "asks for one" in none["detail"]) == ("problem", True), none
    bad = checks(**foreign)["client certificate"]
    assert (bad["status"], "mallory.pem" in bad["detail"]) == ("problem", True), bad
