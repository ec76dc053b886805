"""The certificate authority and the serving certificate."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from serinus.mesh.ca import AUTHORITY_LIFE, SERVING_LIFE, create_authority, issue_serving, load_or_create

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("serinus.serinus-system.svc", "serinus-webhook.serinus-system.svc")


def secret(data: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"namespace": "serinus-system", "name": "serinus-ca"}, "data": data}


def test_a_client_that_trusts_the_authority_accepts_the_certificate_for_each_name() -> None:
    bundle, _ = load_or_create(None, NAMES, NOW)
    leaf = x509.load_pem_x509_certificate(bundle.serving.certificate)
    store = Store([x509.load_pem_x509_certificate(bundle.ca_pem)])
    for name in NAMES:
        verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.DNSName(name))
        assert verifier.verify(leaf, [])


def test_openssl_takes_the_certificate_with_its_key_and_the_authority(tmp_path: Any) -> None:
    bundle, _ = load_or_create(None, NAMES, NOW)
    (tmp_path / "crt").write_bytes(bundle.serving.certificate)
    (tmp_path / "key").write_bytes(bundle.serving.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "crt", tmp_path / "key")
    ssl.create_default_context(cadata=bundle.ca_pem.decode())


def test_what_was_kept_is_used_again_unchanged() -> None:
    first, data = load_or_create(None, NAMES, NOW)
    second, again = load_or_create(secret(data), NAMES, NOW + timedelta(days=100))
    assert (second, again) == (first, data)


def test_the_serving_certificate_is_renewed_after_two_thirds_of_its_life() -> None:
    first, data = load_or_create(None, NAMES, NOW)
    due = NOW + SERVING_LIFE * 2 / 3
    assert abs(first.renew_at - due) < timedelta(minutes=10)
    second, _ = load_or_create(secret(data), NAMES, due + timedelta(days=1))
    assert second.ca_pem == first.ca_pem
    assert second.serving != first.serving


def test_another_name_needs_another_certificate_of_the_same_authority() -> None:
    first, data = load_or_create(None, NAMES[:1], NOW)
    second, _ = load_or_create(secret(data), NAMES, NOW)
    assert second.ca_pem == first.ca_pem
    assert second.serving != first.serving


def test_an_authority_that_ends_before_what_it_signs_is_replaced() -> None:
    first, data = load_or_create(None, NAMES, NOW)
    second, _ = load_or_create(secret(data), NAMES, NOW + AUTHORITY_LIFE - timedelta(days=364))
    assert second.ca_pem != first.ca_pem
    leaf = x509.load_pem_x509_certificate(second.serving.certificate)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(second.ca_pem))


def test_a_certificate_of_another_authority_is_replaced() -> None:
    first, data = load_or_create(None, NAMES, NOW)
    foreign = issue_serving(create_authority(NOW), NAMES, NOW)
    data["tls.crt"] = base64.b64encode(foreign.certificate).decode()
    data["tls.key"] = base64.b64encode(foreign.key).decode()
    second, _ = load_or_create(secret(data), NAMES, NOW)
    assert second.ca_pem == first.ca_pem
    assert second.serving.certificate != foreign.certificate


@pytest.mark.parametrize("field", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("value", [None, "not base64", base64.b64encode(b"no PEM").decode()])
def test_a_secret_that_holds_something_else_is_not_overwritten(field: str, value: str | None) -> None:
    _, data = load_or_create(None, NAMES, NOW)
    broken = {**data, field: value} if value else {name: kept for name, kept in data.items() if name != field}
    with pytest.raises(ValueError, match="serinus-system/serinus-ca"):
        load_or_create(secret(broken), NAMES, NOW)


def test_a_key_of_another_certificate_is_noticed() -> None:
    _, data = load_or_create(None, NAMES, NOW)
    _, other = load_or_create(None, NAMES, NOW)
    with pytest.raises(ValueError, match="does not belong"):
        load_or_create(secret({**data, "ca.key": other["ca.key"]}), NAMES, NOW)


def test_an_empty_secret_is_filled() -> None:
    assert load_or_create(secret({}), NAMES, NOW)[1].keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
