"""Contexts that load their certificates late verify like those that loaded them at once."""

from __future__ import annotations

import ssl

import pytest

from windlass.gateway.transport.certificates import LateContext, late_context, loaded_late


def known(context: ssl.SSLContext) -> int:
    return ssl.SSLContext.cert_store_stats(context)["x509_ca"]


def test_it_verifies_names_and_certificates_as_the_usual_one_does() -> None:
    usual, late = ssl.create_default_context(), late_context()
    assert (late.verify_mode, late.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (late.options, late.minimum_version) == (usual.options, usual.minimum_version)
    assert known(late) == 0
    assert late.get_ca_certs(binary_form=True) == usual.get_ca_certs(binary_form=True)


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_certificates_are_there_at_the_first_connection(wrapped: bool) -> None:
    late, loaded = late_context(), known(ssl.create_default_context())
    if wrapped:
        late.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
    else:
        late.get_ca_certs()
    assert known(late) == loaded


def test_only_contexts_without_wishes_are_late_and_only_meanwhile() -> None:
    before, verify_paths = ssl.create_default_context, ssl.SSLContext.set_default_verify_paths
    with loaded_late():
        assert type(ssl.create_default_context()) is LateContext
        assert type(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)) is ssl.SSLContext
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        trusting.set_default_verify_paths()
    assert ssl.create_default_context is before
    assert ssl.SSLContext.set_default_verify_paths is verify_paths
    assert type(ssl.create_default_context()) is ssl.SSLContext
    assert known(trusting) == 0
