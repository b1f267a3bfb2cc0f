"""TLS: the local authority, timely renewal, and checks of an operator's certificate."""

from __future__ import annotations

import ssl
import stat
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fal_server.composition import tls
from fal_server.composition.settings import TlsSettings
from fal_server.composition.tls import NAMES, RENEW_BEFORE, Certificates, check_pair, is_due
from fal_server.core.faults import Unavailable
from tests.support.certificates import Authority

NOW = datetime.now(UTC).replace(microsecond=0)


class ManualNow:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_a_certificate_is_due_in_its_last_thirty_days_and_after(end: datetime, left: timedelta) -> None:
    try:
        now = end - left
    except OverflowError:
        return
    if end - RENEW_BEFORE >= datetime.min.replace(tzinfo=UTC) + timedelta(days=1):
        assert is_due(end, now) == (left <= timedelta(days=30))


def leaf(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "leaf.pem").read_bytes())


def test_the_bundle_holds_what_the_machine_trusts_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    other = Certificates(tmp_path / "other", TlsSettings(), ManualNow())
    assert other.ca_file is not None
    monkeypatch.setenv("SSL_CERT_FILE", str(other.ca_file))
    certificates = Certificates(tmp_path / "tls", TlsSettings(), ManualNow())
    assert certificates.ca_file is not None
    assert certificates.bundle is not None
    both = other.ca_file.read_bytes() + b"\n" + certificates.ca_file.read_bytes()
    assert certificates.bundle.read_bytes() == both
    # As `fal env` sets it; missing files do not matter.
    for named in (certificates.bundle, tmp_path / "missing.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(named))
        again = Certificates(tmp_path / "tls", TlsSettings(), ManualNow())
        assert again.bundle is not None
        assert len(ssl.create_default_context(cafile=str(again.bundle)).get_ca_certs()) > 10


def test_the_bundle_holds_the_machine_s_own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    (tmp_path / "system.pem").write_text("the machine's\n")
    monkeypatch.setattr(tls, "SYSTEM_AUTHORITIES", (tmp_path / "missing.pem", tmp_path / "system.pem"))
    certificates = Certificates(tmp_path / "tls", TlsSettings(), ManualNow())
    assert certificates.bundle is not None
    assert certificates.bundle.read_text().startswith("the machine's\n")


def test_the_local_authority_makes_a_certificate_for_all_names(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls", TlsSettings(names=("box.example",)), ManualNow())
    names = leaf(tmp_path / "tls").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {*NAMES, "box.example"}
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert certificates.ca_file is not None
    assert certificates.bundle is not None
    trusting = ssl.create_default_context(cafile=str(certificates.ca_file))
    assert len(ssl.create_default_context(cafile=str(certificates.bundle)).get_ca_certs()) > len(
        trusting.get_ca_certs()
    )
    assert not _handshake(certificates.context, trusting, "localhost")
    assert not _handshake(certificates.context, trusting, "queue.fal.run")
    assert "Hostname mismatch" in _handshake(certificates.context, trusting, "elsewhere.example")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Make a handshake in memory; return why it failed, or nothing."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return error.reason or str(error)
    return ""


def test_it_is_renewed_before_it_ends_and_the_authority_stays(tmp_path: Path) -> None:
    now = ManualNow()
    certificates = Certificates(tmp_path, TlsSettings(), now)
    first, authority = leaf(tmp_path), (tmp_path / "ca.pem").read_bytes()
    now.at = first.not_valid_after_utc - timedelta(days=31)
    assert certificates.refresh() is False
    now.at = first.not_valid_after_utc - timedelta(days=29)
    assert certificates.refresh() is True
    assert leaf(tmp_path).serial_number != first.serial_number
    assert leaf(tmp_path).not_valid_after_utc > first.not_valid_after_utc
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert certificates.refresh() is False


def test_a_restart_keeps_the_certificate_and_another_name_makes_a_new_one(tmp_path: Path) -> None:
    Certificates(tmp_path, TlsSettings(), ManualNow())
    first = leaf(tmp_path).serial_number
    Certificates(tmp_path, TlsSettings(), ManualNow())
    assert leaf(tmp_path).serial_number == first
    Certificates(tmp_path, TlsSettings(names=("box",)), ManualNow())
    assert leaf(tmp_path).serial_number != first


def test_own_certificates_are_checked_and_taken_over_when_they_change(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Certificates(tmp_path / name, TlsSettings(), ManualNow())
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    certificate.write_bytes((tmp_path / "one" / "leaf.pem").read_bytes())
    key.write_bytes((tmp_path / "one" / "leaf.key").read_bytes())
    own = Certificates(tmp_path / "unused", TlsSettings(certificate=certificate, key=key), ManualNow())
    assert own.ca_file is None
    assert not (tmp_path / "unused").exists()
    assert own.refresh() is False
    key.write_bytes((tmp_path / "two" / "leaf.key").read_bytes())
    with pytest.raises(Unavailable, match=r"own\.key is not that of"):
        own.refresh()
    certificate.write_bytes((tmp_path / "two" / "leaf.pem").read_bytes())
    assert own.refresh() is True


@pytest.mark.parametrize(
    "name", ["box", "box.example", "*.box.example", "xn--bcher-kva.example", "10.0.0.5", "fd00::1"]
)
def test_a_name_that_is_one(tmp_path: Path, name: str) -> None:
    assert Certificates(tmp_path, TlsSettings(names=(name,)), ManualNow()).ca_file is not None


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    Certificates(tmp_path, TlsSettings(), ManualNow())
    good, key = tmp_path / "leaf.pem", tmp_path / "leaf.key"
    junk, locked = tmp_path / "junk", tmp_path / "locked"
    junk.write_text("no PEM")
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    for pair, now, message in (
        ((tmp_path / "none", key), NOW, "none cannot be read"),
        ((good, tmp_path / "none"), NOW, "none cannot be read"),
        ((junk, key), NOW, "holds no certificate"),
        ((good, junk), NOW, "holds no private key"),
        ((good, locked), NOW, "is encrypted"),
        ((good, tmp_path / "ca.key"), NOW, "is not that of"),
        ((good, key), NOW + timedelta(days=91), "expired on"),
        ((good, key), NOW - timedelta(days=2), "is not valid before"),
    ):
        with pytest.raises(Unavailable, match=message):
            check_pair(*pair, now)
    (tmp_path / "ca.key").write_text("broken")
    with pytest.raises(Unavailable, match="remove that directory"):
        Certificates(tmp_path, TlsSettings(), ManualNow())


def _older(context: ssl.SSLContext) -> ssl.SSLContext:
    """Restrict one end to TLS 1.0 and 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated on purpose
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def test_a_client_that_speaks_an_older_tls_is_refused(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls", TlsSettings(), ManualNow())
    assert certificates.ca_file is not None
    old = _older(ssl.create_default_context(cafile=str(certificates.ca_file)))
    assert "protocol" in _handshake(certificates.context, old, "localhost").lower()
    willing = _older(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    willing.load_cert_chain(tmp_path / "tls" / "leaf.pem", tmp_path / "tls" / "leaf.key")
    again = _older(ssl.create_default_context(cafile=str(certificates.ca_file)))
    assert not _handshake(willing, again, "localhost"), "this client can speak it with a server that does"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"", "holds no certificate"), (b"words", "holds no certificate")],
)
def test_a_file_without_authorities_of_clients_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "clients.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unavailable, match=message):
        Certificates(tmp_path / "tls", TlsSettings(client_authorities=file), ManualNow())


def test_a_certificate_of_a_client_is_no_authority(tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path, "ours").issue("ann")
    with pytest.raises(Unavailable, match="holds no authority"):
        Certificates(tmp_path / "tls", TlsSettings(client_authorities=certificate), ManualNow())
