import base64
import dataclasses
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from strop.progress.certificates import AUTHORITY_LIFE, CERTIFICATE_LIFE, Authority, Certificates, renewed

HOST = "strop-progress.strop-system.svc"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def count(pem: str) -> int:
    return len(x509.load_pem_x509_certificates(pem.encode()))


def signed_by(certificates: Certificates) -> bool:
    authority = x509.load_pem_x509_certificates(certificates.bundle.encode())[0]
    leaf = x509.load_pem_x509_certificate(certificates.certificate.encode())
    leaf.verify_directly_issued_by(authority)
    return True


def test_the_first_start_makes_an_authority_and_a_certificate() -> None:
    made = renewed(None, HOST, NOW)
    assert count(made.bundle) == 1
    assert signed_by(made)


def test_what_is_good_for_a_while_stays() -> None:
    made = renewed(None, HOST, NOW)
    assert renewed(made, HOST, NOW + timedelta(days=30)) is made


def test_a_certificate_is_renewed_before_its_end_by_the_same_authority() -> None:
    made = renewed(None, HOST, NOW)
    later = renewed(made, HOST, NOW + CERTIFICATE_LIFE - timedelta(days=20))
    assert later.bundle == made.bundle
    assert later.certificate != made.certificate
    assert signed_by(later)


def test_another_address_needs_another_certificate() -> None:
    made = renewed(None, HOST, NOW)
    assert renewed(made, "other.svc", NOW).certificate != made.certificate


def test_an_authority_near_its_end_is_followed_while_the_old_one_is_still_trusted() -> None:
    made = renewed(None, HOST, NOW)
    later = renewed(made, HOST, NOW + AUTHORITY_LIFE - timedelta(days=100))
    assert count(later.bundle) == 2
    assert later.bundle.endswith(made.bundle)
    assert signed_by(later)
    after_its_end = renewed(made, HOST, NOW + AUTHORITY_LIFE + timedelta(days=1))
    assert count(after_its_end.bundle) == 1


class Keeping:
    """An API server that keeps one Secret."""

    def __init__(self, data: dict[str, str]) -> None:
        self.secret: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "data": data}

    async def get(self, *_: Any) -> dict[str, Any]:
        return self.secret

    async def apply(self, manifest: dict[str, Any], **_: Any) -> None:
        self.secret = manifest


GOOD = renewed(None, HOST, datetime.now(UTC))
OTHER = renewed(None, HOST, datetime.now(UTC))


@pytest.mark.parametrize(
    "found",
    [
        Certificates("", "", "", ""),
        dataclasses.replace(GOOD, bundle="no certificate"),
        dataclasses.replace(GOOD, certificate="no certificate"),
        dataclasses.replace(GOOD, key=OTHER.key),
        dataclasses.replace(GOOD, authority_key=OTHER.authority_key),
        dataclasses.replace(GOOD, certificate=OTHER.certificate, key=OTHER.key),
    ],
    ids=["empty", "bundle", "certificate", "another key", "another authority's key", "another authority's"],
)
async def test_a_secret_that_was_spoilt_is_made_anew(found: Certificates) -> None:
    """As by a restored backup, or a hand: the operator once ended over it, at each start."""
    parts = {"ca.crt": found.bundle, "ca.key": found.authority_key, "tls.crt": found.certificate, "tls.key": found.key}
    client = Keeping({name: base64.b64encode(text.encode()).decode() for name, text in parts.items()})
    authority = Authority(client, "strop-system", "tls", HOST, "pod")  # type: ignore[arg-type]
    await authority.renew()
    assert authority._current is not None
    assert signed_by(authority._current)
    assert base64.b64decode(client.secret["data"]["ca.crt"]).decode() == authority.bundle


@pytest.mark.parametrize("host", [HOST, "127.0.0.1", "localhost"])
def test_a_strict_client_takes_it(host: str, tmp_path: Path) -> None:
    made = renewed(None, host, datetime.now(UTC))
    (tmp_path / "tls.pem").write_text(made.certificate + made.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.pem")
    client = ssl.create_default_context(cadata=made.bundle)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[int] = set()
    for _ in range(10):
        for index, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(index)
            except ssl.SSLWantReadError:
                continue
    assert done == {0, 1}
