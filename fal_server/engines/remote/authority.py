"""The controller's own authority for its nodes: signs their certificates, and has one of the controller's."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.engines.remote.names import all_names
from fal_server.engines.remote.way import Credentials

NODE_LIFE = timedelta(days=7)
RENEW_BEFORE = timedelta(days=4)
_OWN_LIFE = timedelta(days=3650)
_SKEW = timedelta(hours=1)


class NodeAuthority:
    """An authority of this controller's nodes alone: no client trusts it.

    Args:
        directory: made with mode 0700 if it is missing.
        now: returns the time.

    Raises:
        Unavailable: the directory cannot be used.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        self._now = now
        self._authority, self._key = directory / "authority.pem", directory / "authority.key"
        own, own_key = directory / "controller.pem", directory / "controller.key"
        self.credentials = Credentials(authority=self._authority, certificate=own, key=own_key)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not own.exists():
                self._make(own, own_key)
        except OSError as error:
            raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error

    def sign(self, node: str, signing_request: bytes) -> bytes:
        """Return the certificate of a node, in PEM.

        Raises:
            InvalidArgument: the request is not that node's.
        """
        try:
            request = x509.load_pem_x509_csr(signing_request)
        except ValueError as error:
            raise InvalidArgument("node", f"the node sent no signing request: {error}") from error
        names = [name.value for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = request.public_key()
        if not request.is_signature_valid or names != [node] or not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidArgument("node", f"the signing request is not that of node {node}")
        return self._sign(node, key, NODE_LIFE, ExtendedKeyUsageOID.SERVER_AUTH, all_names(node))

    def is_due(self, ends_at: datetime) -> bool:
        """Whether a node's certificate that ends then is to be renewed."""
        return self._now() >= ends_at - RENEW_BEFORE

    @property
    def certificate(self) -> bytes:
        """The authority itself, in PEM."""
        return self._authority.read_bytes()

    def _make(self, own: Path, own_key: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fal controller: authority of its nodes")])
        authority = (
            self._builder(name, name, key.public_key(), _OWN_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self._key, _key_bytes(key))
        _write(self._authority, authority.public_bytes(serialization.Encoding.PEM))
        mine = ec.generate_private_key(ec.SECP256R1())
        _write(own_key, _key_bytes(mine))
        _write(own, self._sign("controller", mine.public_key(), _OWN_LIFE, ExtendedKeyUsageOID.CLIENT_AUTH, []))

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        life: timedelta,
        usage: ObjectIdentifier,
        names: list[str],
    ) -> bytes:
        try:
            authority = x509.load_pem_x509_certificate(self._authority.read_bytes())
            authority_key = serialization.load_pem_private_key(self._key.read_bytes(), None)
            if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
                raise ValueError("not a key of ours")
            authority.verify_directly_issued_by(authority)
        except (OSError, ValueError, TypeError, InvalidSignature) as error:
            raise Unavailable(f"the authority of the nodes in {self._key.parent} cannot be used: {error}") from error
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, authority.subject, key, life).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=True
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
            )
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
    ) -> x509.CertificateBuilder:
        now = self._now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + life)
        )


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form)


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)
