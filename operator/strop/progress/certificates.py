"""The progress server's own authority and certificate: made at the first start, kept in a Secret, renewed in time."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strop.api.names import FIELD_MANAGER, LABEL_MANAGED_BY
from strop.cluster.client import CONFLICT, ApiError, Client
from strop.cluster.resources import SECRETS
from strop.desired.metadata import Manifest

LOGGER = logging.getLogger(__name__)

AUTHORITY_LIFE: Final = timedelta(days=3650)
AUTHORITY_RENEWAL: Final = timedelta(days=400)
"""Before its end. The old authority stays in the bundle, and with it the trust of pods that run."""
CERTIFICATE_LIFE: Final = timedelta(days=90)
CERTIFICATE_RENEWAL: Final = timedelta(days=30)
CLOCK_SKEW: Final = timedelta(minutes=5)
CHECK_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Certificates:
    """What the Secret holds, all in PEM."""

    bundle: str
    """Authorities that trainers trust; the one that signs comes first."""
    authority_key: str
    certificate: str
    key: str


def renewed(found: Certificates | None, host: str, now: datetime) -> Certificates:
    """Return certificates that are good for a while; those that were found where they still are."""
    bundle, authority_key = (found.bundle, found.authority_key) if found else ("", "")
    if not found or _end(bundle) - now < AUTHORITY_RENEWAL:
        fresh, authority_key = _new_authority(now)
        still_valid = x509.load_pem_x509_certificates(bundle.encode()) if bundle else []
        old = [_pem(each) for each in still_valid if each.not_valid_after_utc > now]
        bundle = "".join([fresh, *old[:1]])
    elif _end(found.certificate) - now > CERTIFICATE_RENEWAL and host in _names(found.certificate):
        return found
    certificate, key = _issue(bundle, authority_key, host, now)
    return Certificates(bundle, authority_key, certificate, key)


class Authority:
    """The Secret, and the TLS context that is made from it."""

    def __init__(self, client: Client, namespace: str, secret: str, host: str, identity: str) -> None:
        self._client = client
        self._namespace = namespace
        self._secret = secret
        self._host = host
        self._manager = f"{FIELD_MANAGER}-{identity}"[:128]
        self._current: Certificates | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def bundle(self) -> str:
        """The PEM certificates that trainers check the server's by."""
        return self._current.bundle if self._current else ""

    async def renew_forever(self) -> None:
        """Look every hour whether another certificate is due, or was made by another replica."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.renew()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                LOGGER.warning("the progress server's certificate was not looked at: %s", error)

    async def renew(self) -> None:
        """Read the Secret, write it where something in it is due, and serve what it holds.

        Raises:
            ApiError: the Secret could be neither read nor written.
        """
        secret = await self._client.get(SECRETS, self._secret, self._namespace)
        found = _read(secret)
        wanted = renewed(found, self._host, datetime.now(UTC))
        if wanted != found:
            try:
                await self._write(secret, wanted)
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
                other = _read(await self._client.get(SECRETS, self._secret, self._namespace))
                if other is None:
                    raise
                wanted = other  # another replica was first
        if wanted != self._current:
            self._load(wanted)

    async def _write(self, secret: Manifest | None, certificates: Certificates) -> None:
        guard = {"resourceVersion": secret["metadata"]["resourceVersion"]} if secret else {}
        manifest = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {
                "name": self._secret,
                "namespace": self._namespace,
                "labels": {LABEL_MANAGED_BY: FIELD_MANAGER},
                **guard,
            },
            "data": {
                "ca.crt": _encode(certificates.bundle),
                "ca.key": _encode(certificates.authority_key),
                "tls.crt": _encode(certificates.certificate),
                "tls.key": _encode(certificates.key),
            },
        }
        # A manager of its own, not forced where there is none yet: of two replicas that make it at once, one loses.
        await self._client.apply(manifest, manager=self._manager, force=secret is not None)

    def _load(self, certificates: Certificates) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tls.pem"
            path.touch(mode=0o600)
            path.write_text(certificates.certificate + certificates.key)
            self.context.load_cert_chain(path)
        self._current = certificates


def _read(secret: Manifest | None) -> Certificates | None:
    """Return what the Secret holds; None where it is not whole, as a hand or a restored backup may leave it."""
    if secret is None:
        return None
    data = secret.get("data") or {}
    try:
        found = Certificates(*(_decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")))
        _check(found)
    except (KeyError, ValueError, TypeError, InvalidSignature) as error:
        words = str(error) or type(error).__name__
        LOGGER.warning("the Secret of the progress server's certificate is made anew: %s", words)
        return None
    return found


def _check(found: Certificates) -> None:
    """Raise what is raised where certificates and keys do not belong together."""
    authority = x509.load_pem_x509_certificates(found.bundle.encode())[0]
    certificate = x509.load_pem_x509_certificate(found.certificate.encode())
    for each, pem in ((authority, found.authority_key), (certificate, found.key)):
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        if key.public_key() != each.public_key():
            raise ValueError(f"a key is not that of {each.subject.rfc4514_string()}")
    certificate.verify_directly_issued_by(authority)


def _new_authority(now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"strop progress {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _issue(bundle: str, authority_key: str, host: str, now: datetime) -> tuple[str, str]:
    authority = x509.load_pem_x509_certificates(bundle.encode())[0]
    signer = serialization.load_pem_private_key(authority_key.encode(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not one of ours")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CERTIFICATE_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _end(pem: str) -> datetime:
    return x509.load_pem_x509_certificates(pem.encode())[0].not_valid_after_utc


def _names(pem: str) -> list[str]:
    extensions = x509.load_pem_x509_certificate(pem.encode()).extensions
    return [str(name.value) for name in extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
