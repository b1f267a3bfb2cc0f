"""Who a node is. It has a name, a key, and what the controller signed for it, all in the node's directory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fal_server.core.faults import InvalidArgument, PermissionDenied, Unavailable
from fal_server.engines.remote.certificates import certificate_builder, key_bytes, name_of
from fal_server.engines.remote.names import all_names

_SELF_LIFE = timedelta(days=365)
_LONGEST_HOST = 30


class NodeIdentity:
    """The identity of the machine whose directory this is.

    Args:
        directory: made with mode 0700 if it is missing.
        now: returns the time.

    Attributes:
        name: the same for as long as the directory exists, whatever the machine's address or host name.
        token: what a controller must show to be the one that this node joins; shown once, and used once.

    Raises:
        Unavailable: the directory cannot be used.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.name = self._kept_name()
            self._key = self._kept_key()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the identity in {directory} cannot be used: {error}") from error
        self.token = "" if self.joined else self._new_token()

    @property
    def joined(self) -> bool:
        """Whether a controller signed a certificate that is still valid."""
        ends_at = self.ends_at
        return ends_at is not None and self._now() < ends_at

    @property
    def ends_at(self) -> datetime | None:
        """When the certificate ends; None if there is none."""
        try:
            certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        except (OSError, ValueError):
            return None
        return certificate.not_valid_after_utc if self._authority.exists() else None

    def context(self) -> ssl.SSLContext:
        """Return how the door speaks TLS. It speaks with the controller alone once the node has joined."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        if self.joined:
            context.load_verify_locations(self._authority)
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(self._certificate, self._key_file)
        else:
            context.load_cert_chain(self._own_certificate(), self._key_file)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Use a renewed certificate for the next connections."""
        context.load_cert_chain(self._certificate, self._key_file)

    def check(self, token: str) -> None:
        """Check that a controller knows the token.

        Raises:
            PermissionDenied: it does not.
        """
        secret = self.token.partition(".")[0]
        if not secret or not secrets.compare_digest(token.encode(), secret.encode()):
            raise PermissionDenied("this is not the token that `fal node up` printed on that machine")

    def leave(self) -> None:
        """Forget the controller, so that another may take this machine. It prints another token.

        Raises:
            Unavailable: the disk does not allow it.
        """
        try:
            self._certificate.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._certificate} cannot be removed: {error.strerror}") from error
        self.token = self._new_token()

    def signing_request(self) -> bytes:
        """Return what a controller is to sign."""
        name = name_of(self.name)
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self._key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)

    def accept(self, certificate: bytes, authority: bytes) -> None:
        """Keep a certificate that a controller signed.

        Raises:
            InvalidArgument: it is not for this node, or not by that authority.
            Unavailable: the disk does not take it.
        """
        try:
            leaf, root = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
            leaf.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise InvalidArgument("certificate", f"the certificate is not by that authority: {error}") from error
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same_key = leaf.public_key().public_bytes(*form) == self._key.public_key().public_bytes(*form)
        if not same_key or set(all_names(self.name)) - set(names.get_values_for_type(x509.DNSName)):
            raise InvalidArgument("certificate", "the certificate is not for this node's key and name")
        try:
            write_whole(self._authority, authority)
            write_whole(self._certificate, certificate)
        except OSError as error:
            raise Unavailable(f"{self._certificate} cannot be written: {error.strerror}") from error
        self.token = ""

    @property
    def _certificate(self) -> Path:
        return self._directory / "certificate.pem"

    @property
    def _authority(self) -> Path:
        return self._directory / "authority.pem"

    @property
    def _key_file(self) -> Path:
        return self._directory / "node.key"

    def _kept_name(self) -> str:
        path = self._directory / "node.json"
        if path.exists():
            return str(json.loads(path.read_text())["name"])
        host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:_LONGEST_HOST]
        name = f"{host or 'node'}-{secrets.token_hex(4)}"
        write_whole(path, json.dumps({"name": name}).encode())
        return name

    def _kept_key(self) -> ec.EllipticCurvePrivateKey:
        if not self._key_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_whole(self._key_file, key_bytes(key))
        found = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{self._key_file} is no key of ours")
        return found

    def _new_token(self) -> str:
        """Return a secret, and what identifies this machine to the controller."""
        certificate = x509.load_pem_x509_certificate(self._own_certificate().read_bytes())
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        return f"{secrets.token_hex(16)}.{digest}"

    def _own_certificate(self) -> Path:
        """The certificate of a node that has not joined yet. The node signs it itself."""
        path = self._directory / "own.pem"
        if path.exists() and x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > self._now():
            return path
        name = name_of(self.name)
        certificate = (
            certificate_builder(name, name, self._key.public_key(), _SELF_LIFE, self._now())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in all_names(self.name)]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        write_whole(path, certificate.public_bytes(serialization.Encoding.PEM))
        return path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all; its mode is 0600. So it survives a power cut."""
    draft = path.with_name(f".{path.name}.new")
    draft.touch(mode=0o600)
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
