"""The controller's own authority for its nodes. It signs their certificates, and has one of the controller's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.engines.remote.certificates import certificate_builder, key_bytes, name_of
from fal_server.engines.remote.names import all_names
from fal_server.engines.remote.way import Credentials

NODE_LIFE = timedelta(days=7)
RENEW_BEFORE = timedelta(days=4)
_OWN_LIFE = timedelta(days=3650)


class NodeAuthority:
    """An authority of the nodes alone: no client trusts it.

    Args:
        pem: its certificate and its key, as `make_authority` returned them.
        now: returns the time.

    Attributes:
        credentials: what this start of the controller shows to nodes; its key is in no file.

    Raises:
        Unavailable: that is not an authority.
    """

    def __init__(self, pem: str, now: Callable[[], datetime]) -> None:
        self._now = now
        try:
            self._authority = x509.load_pem_x509_certificate(pem.encode())
            key = serialization.load_pem_private_key(pem.encode(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError("not a key of ours")
            self._authority.verify_directly_issued_by(self._authority)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Unavailable(f"the authority of the nodes cannot be used: {error}") from error
        self._key = key
        mine = ec.generate_private_key(ec.SECP256R1())
        own = self._sign("controller", mine.public_key(), _OWN_LIFE, ExtendedKeyUsageOID.CLIENT_AUTH, [])
        self.credentials = Credentials(authority=self.certificate, certificate=own, key=key_bytes(mine))

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

    @staticmethod
    def name_in(certificate: bytes) -> str:
        """Return the name in any node's certificate, in DER."""
        shown = x509.load_der_x509_certificate(certificate)
        (name,) = (str(each.value) for each in shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
        return name

    def is_due(self, ends_at: datetime) -> bool:
        """Whether a node's certificate that ends then is to be renewed."""
        return self._now() >= ends_at - RENEW_BEFORE

    @property
    def certificate(self) -> bytes:
        """The authority itself, in PEM."""
        return self._authority.public_bytes(serialization.Encoding.PEM)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        life: timedelta,
        usage: ObjectIdentifier,
        names: list[str],
    ) -> bytes:
        subject = name_of(name)
        builder = certificate_builder(subject, self._authority.subject, key, life, self._now()).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=True
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(now: datetime) -> str:
    """Return the certificate and the key of a new authority, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = name_of("fal controller: authority of its nodes")
    authority = (
        certificate_builder(name, name, key.public_key(), _OWN_LIFE, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (authority.public_bytes(serialization.Encoding.PEM) + key_bytes(key)).decode()
