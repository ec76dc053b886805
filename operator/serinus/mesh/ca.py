"""The installation's own certificate authority, and the serving certificate that it gives the operator. Pure.

Sidecars trust the authority for the ADS server, the API server for the webhooks. Keys are P-256.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3652)
SERVING_LIFE = timedelta(days=365)

_SKEW = timedelta(minutes=5)
"""Certificates begin this much earlier, for clocks that are behind."""
_FIELDS = ("ca.crt", "ca.key", "tls.crt", "tls.key")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the operator serves with, and what its clients trust. ``renew_at`` is when to ask for a new one."""

    ca_pem: bytes
    serving: Pair
    renew_at: datetime


def create_authority(now: datetime) -> Pair:
    """Return a new authority, good for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "serinus")])
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue_serving(authority: Pair, dns_names: Sequence[str], now: datetime) -> Pair:
    """Return a certificate for a server that is reached by these DNS names, good for a year."""
    ca, ca_key = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(x509.Name([]), ca.subject, key.public_key(), now, SERVING_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def renew_at(certificate: bytes) -> datetime:
    """Return when two thirds of the certificate's life are over."""
    loaded = x509.load_pem_x509_certificate(certificate)
    life = loaded.not_valid_after_utc - loaded.not_valid_before_utc
    return loaded.not_valid_before_utc + life * 2 / 3


def load_or_create(
    secret: Mapping[str, Any] | None, dns_names: Sequence[str], now: datetime
) -> tuple[Bundle, dict[str, str]]:
    """Return what to serve with, and the Secret's ``data`` that keeps it; equal data means that nothing changed.

    ``secret`` is the whole Secret as the API server has it, or None. The authority stays as long as a serving
    certificate that it signs now lives; after that there is a new one, and sidecars must be restarted. The serving
    certificate is made anew when two thirds of its life are over, or when it lacks a name.

    Raises:
        ValueError: the Secret holds something else. It is not overwritten, because running sidecars trust the old
            authority.
    """
    held = _held(secret)
    if held is None:
        authority = create_authority(now)
        serving = issue_serving(authority, dns_names, now)
    else:
        authority, serving = held
        if _end(authority) < now + SERVING_LIFE:
            authority = create_authority(now)
        if not _serves(authority, serving, dns_names, now):
            serving = issue_serving(authority, dns_names, now)
    values = (authority.certificate, authority.key, serving.certificate, serving.key)
    data = {field: base64.b64encode(value).decode() for field, value in zip(_FIELDS, values, strict=True)}
    return Bundle(authority.certificate, serving, renew_at(serving.certificate)), data


def _held(secret: Mapping[str, Any] | None) -> tuple[Pair, Pair] | None:
    data = (secret or {}).get("data")
    if not data:
        return None
    try:
        values = [base64.b64decode(data[field], validate=True) for field in _FIELDS]
        pairs = (Pair(*values[:2]), Pair(*values[2:]))
        for pair in pairs:
            certificate, key = _load(pair)
            if certificate.public_key() != key.public_key():
                raise ValueError("a key does not belong to its certificate")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        metadata = (secret or {}).get("metadata") or {}
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        raise ValueError(
            f'the Secret "{name}" holds no certificate authority of ours ({error}); '
            "restore it, or delete it and restart all pods with a sidecar"
        ) from error
    return pairs


def _serves(authority: Pair, serving: Pair, dns_names: Sequence[str], now: datetime) -> bool:
    ca, _ = _load(authority)
    certificate, _ = _load(serving)
    try:
        certificate.verify_directly_issued_by(ca)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return set(dns_names) <= set(names.get_values_for_type(x509.DNSName)) and now < renew_at(serving.certificate)


def _end(pair: Pair) -> datetime:
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc


def _load(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(pair.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic curve's")
    return x509.load_pem_x509_certificate(pair.certificate), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
