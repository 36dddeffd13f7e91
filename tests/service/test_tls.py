"""TLS: a client that trusts the certificate is served, any other is not."""

import shutil
import subprocess

import pytest

from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.client import connect
from vecdb.errors import FailedPrecondition, Unavailable


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for this test only, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_client_that_trusts_the_certificate_is_served(loop, pair):
    certificate, key = pair
    with (
        serving(loop, ScriptedDatabase(), tls_certificate=certificate, tls_key=key) as server,
        connect(server.address, tls=certificate) as database,
    ):
        assert list(database.collections()) == ["docs"]


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_is_refused(loop, pair, tls):
    certificate, key = pair
    with (
        serving(loop, ScriptedDatabase(), tls_certificate=certificate, tls_key=key) as server,
        pytest.raises(Unavailable) as caught,
    ):
        connect(server.address, tls=tls, timeout_s=5)
    assert caught.value.value == server.address


def test_with_tls_other_machines_may_reach_it(loop, pair):
    certificate, key = pair
    with serving(loop, ScriptedDatabase(), address="0.0.0.0:0", tls_certificate=certificate, tls_key=key) as server:
        port = server.address.rpartition(":")[2]
        with connect(f"127.0.0.1:{port}", tls=certificate) as database:
            assert list(database.collections()) == ["docs"]


def test_a_file_that_cannot_be_read_is_named(loop, tmp_path):
    missing = tmp_path / "missing.pem"
    with (
        pytest.raises(FailedPrecondition, match=r"missing\.pem"),
        serving(loop, ScriptedDatabase(), tls_certificate=missing, tls_key=missing),
    ):
        pass
    with pytest.raises(FailedPrecondition) as caught:
        connect("127.0.0.1:1", tls=missing)
    assert caught.value.field == "tls"
