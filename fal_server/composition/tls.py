"""TLS: certificates of a local CA, or the operator's own."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fal_server.aio.rounds import every
from fal_server.composition.settings import TlsSettings
from fal_server.core.authorities import SYSTEM_AUTHORITIES
from fal_server.core.faults import Fault, Unavailable
from fal_server.engines.remote.certificates import certificate_builder, key_bytes, name_of
from fal_server.http.routes.hosts import CLOUD_HOSTS
from fal_server.store.files.durable import write_draft

log = logging.getLogger(__name__)
AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
# A client whose clock is a little behind must accept a new certificate.
_LOOK_SECONDS = 3600.0
# This machine, and the hosts that the published clients call, so that a proxy can redirect those calls here.
NAMES = (
    "localhost",
    "queue.localhost",
    "127.0.0.1",
    "::1",
    *CLOUD_HOSTS,
)


def is_due(not_after: datetime, now: datetime) -> bool:
    """Return whether a certificate that expires at `not_after` must be renewed."""
    return now >= not_after - RENEW_BEFORE


class Certificates:
    """The listener's certificate; the local CA's is renewed before it expires.

    Args:
        directory: of the local CA; created with mode 0700.
        now: returns the current time.

    Raises:
        Unavailable: the operator's certificate or CAs cannot be used, or the directory cannot be written.
    """

    def __init__(self, directory: Path, settings: TlsSettings, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._local: LocalAuthority | None = None
        if settings.certificate is not None and settings.key is not None:
            self._files = (settings.certificate, settings.key)
        else:
            self._local = LocalAuthority(directory, (*NAMES, *settings.names), now)
            self._files = self._local.leaf_files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.client_authorities is not None:
            _require_client_certificates(self.context, settings.client_authorities)
        self._loaded = self._load()

    @property
    def ends_at(self) -> datetime:
        """When the certificate ends that new connections get."""
        return self._ends_at

    @property
    def ca_file(self) -> Path | None:
        """The CA that clients must trust. None if the certificate is the operator's."""
        return None if self._local is None else self._local.ca_file

    @property
    def bundle(self) -> Path | None:
        """The local and the public CAs in one file. Some programs take only one file."""
        return None if self._local is None else self._local.bundle

    def refresh(self) -> bool:
        """Renew a certificate that is due and load changed files.

        Returns:
            Whether new connections get another certificate.

        Raises:
            Unavailable: it failed; the old certificate stays in use.
        """
        if self._local is not None:
            self._local.renew()
        if self._modified() == self._loaded:
            return False
        self._loaded = self._load()
        return True

    async def run(self, stopping: asyncio.Event) -> None:
        """Refresh every hour until `stopping` is set."""
        await every("renewing the certificate", _LOOK_SECONDS, self._refresh_and_report).run_until(stopping)

    async def _refresh_and_report(self) -> None:
        if await asyncio.to_thread(self.refresh):
            log.info("new connections get the certificate from %s", self._files[0])

    def _modified(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in self._files)
        except OSError as error:
            raise Unavailable(f"{error.filename} cannot be read: {error.strerror}") from error

    def _load(self) -> tuple[int, ...]:
        modified = self._modified()
        check_pair(*self._files, self._now())
        try:
            self._ends_at = x509.load_pem_x509_certificates(self._files[0].read_bytes())[0].not_valid_after_utc
            self.context.load_cert_chain(*self._files)
        except (OSError, ValueError, ssl.SSLError) as error:
            raise Unavailable(f"the certificate {self._files[0]} cannot be used: {error}") from error
        return modified


class LocalAuthority:
    """This controller's CA, and the one certificate that it issues.

    Args:
        directory: created with mode 0700; contains ca.pem, ca.key, leaf.pem, leaf.key and bundle.pem.
        names: host names and addresses.

    Raises:
        Unavailable: the directory cannot be written, or a file in it cannot be read.
    """

    def __init__(self, directory: Path, names: Sequence[str], now: Callable[[], datetime]) -> None:
        self._names = [_general_name(name) for name in dict.fromkeys(names)]
        self._now = now
        self.ca_file, self._ca_key = directory / "ca.pem", directory / "ca.key"
        self.leaf_files = directory / "leaf.pem", directory / "leaf.key"
        self.bundle = directory / "bundle.pem"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (
                not (self.ca_file.exists() and self._ca_key.exists())
                or self._authority()[0].not_valid_after_utc < now()
            ):
                self._make_authority()
            self.renew()
            trusted = self._trusted_already() + b"\n" + self.ca_file.read_bytes()
            if not self.bundle.exists() or self.bundle.read_bytes() != trusted:
                _write(self.bundle, trusted)
        except OSError as error:
            raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error

    def _trusted_already(self) -> bytes:
        """Return the CAs in SSL_CERT_FILE, or those that the machine trusts. The public ones if it has none.

        The bundle replaces them for builds and apps, and behind a proxy with its own CA only the machine's list has it.
        """
        named = os.environ.get("SSL_CERT_FILE")
        for chosen in [*([Path(named)] if named else []), *SYSTEM_AUTHORITIES]:
            if chosen.is_file() and not (self.bundle.exists() and chosen.samefile(self.bundle)):
                return chosen.read_bytes()
        return Path(certifi.where()).read_bytes()

    def renew(self) -> None:
        """Issue another certificate if it is due. It is also due if the names or the CA changed.

        Raises:
            Unavailable: it cannot be written.
        """
        authority, key = self._authority()
        try:
            if not self._is_current(authority):
                self._make_leaf(authority, key)
        except OSError as error:
            raise Unavailable(f"{self.leaf_files[0]} cannot be written: {error.strerror}") from error

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            key = serialization.load_pem_private_key(self._ca_key.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(
                f"the local authority in {self.ca_file.parent} cannot be read ({error}): remove that directory; the "
                "next start makes another authority, which clients must trust again"
            ) from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return certificate, key

    def _is_current(self, authority: x509.Certificate) -> bool:
        try:
            leaf = x509.load_pem_x509_certificate(self.leaf_files[0].read_bytes())
            check_pair(*self.leaf_files, self._now())
            leaf.verify_directly_issued_by(authority)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, TypeError, Fault, InvalidSignature, x509.ExtensionNotFound):
            return False
        return list(names) == self._names and not is_due(leaf.not_valid_after_utc, self._now())

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = name_of("fal controller: local authority")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            certificate_builder(name, name, key.public_key(), AUTHORITY_LIFE, self._now())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._ca_key, key_bytes(key))
        _write(self.ca_file, certificate.public_bytes(serialization.Encoding.PEM))

    def _make_leaf(self, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = name_of("fal controller")
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        certificate = (
            certificate_builder(name, authority.subject, key.public_key(), LEAF_LIFE, self._now())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(self._names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.ca_file.read_bytes()
        _write(self.leaf_files[1], key_bytes(key))
        _write(self.leaf_files[0], chain)


def _require_client_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    """Have the listener require client certificates from one of these CAs.

    The handshake admits a client without one, so that the listener can tell it what is missing.

    Raises:
        Unavailable: the file cannot be read, or contains no CA.
    """
    try:
        context.load_verify_locations(cafile=authorities)
    except ssl.SSLError as error:  # a subclass of OSError
        raise Unavailable(f"--tls-client-ca {authorities} holds no certificate in PEM") from error
    except OSError as error:
        raise Unavailable(f"--tls-client-ca {authorities} cannot be read: {error.strerror}") from error
    if not context.get_ca_certs():
        raise Unavailable(f"--tls-client-ca {authorities} holds no authority: give the one that issues certificates")
    context.verify_mode = ssl.CERT_OPTIONAL


def check_pair(certificate_file: Path, key_file: Path, now: datetime) -> None:
    """Check that a certificate and its key can be used now.

    Raises:
        Unavailable: they cannot be used.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except OSError as error:
        raise Unavailable(f"the certificate {certificate_file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Unavailable(f"{certificate_file} holds no certificate in PEM") from error
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except OSError as error:
        raise Unavailable(f"the key {key_file} cannot be read: {error.strerror}") from error
    except TypeError as error:
        raise Unavailable(f"the key {key_file} is encrypted: give one without a passphrase, mode 0600") from error
    except ValueError as error:
        raise Unavailable(f"{key_file} holds no private key in PEM") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise Unavailable(f"the key {key_file} is not that of the certificate {certificate_file}")
    if now >= certificate.not_valid_after_utc:
        raise Unavailable(
            f"the certificate {certificate_file} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise Unavailable(
            f"the certificate {certificate_file} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    """Replace a file; mode 0600."""
    write_draft(path.parent, content).replace(path)
