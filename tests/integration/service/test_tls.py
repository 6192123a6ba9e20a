"""TLS towards a PostgreSQL that shows a certificate of the test's own."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from observability import Metrics
from service.db import migrate
from service.db.session import Database
from service.errors import UnavailableError
from service.settings import DatabaseSettings
from tests.integration.service.tls_front import TlsFront

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates, and is not here")


@dataclass(frozen=True)
class Secured:
    """A database behind TLS for `localhost`, and the certificate that vouches for it."""

    url: str
    ca: Path
    stranger: Path
    front: TlsFront

    def at(self, host: str) -> str:
        parts = urlsplit(self.url)
        place = f"{parts.username}:{parts.password}@{host}:{self.front.port}"
        return urlunsplit(parts._replace(netloc=place))


def certificate(folder: Path, name: str, host: str) -> Path:
    """A self-made certificate and its key, `<name>.crt` and `<name>.key`."""
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}.crt"
    subprocess.run(
        [
            str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
            "-keyout", str(target.with_suffix(".key")), "-out", str(target),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture
def secured(database_url: str, tmp_path: Path) -> Iterator[Secured]:
    parts = urlsplit(database_url)
    ca = certificate(tmp_path, "server", "localhost")
    with TlsFront(ca, parts.hostname or "", parts.port or 0) as front:
        yield Secured(database_url, ca, certificate(tmp_path, "stranger", "localhost"), front)


async def reach(url: str, **changes: object) -> None:
    """One round trip with these settings. Raises UnavailableError."""
    database = Database(
        DatabaseSettings.model_validate({"url": url, **changes}),
        application="tls",
        metrics=Metrics(CollectorRegistry(), "yardstick"),
    )
    try:
        await database.ping()
    finally:
        await database.close()


async def test_each_mode_does_what_its_name_says(secured: Secured) -> None:
    local = secured.at("localhost")
    for mode in ("disable", "prefer", "require"):
        await reach(local, tls_mode=mode)
    for mode in ("verify-ca", "verify-full"):
        await reach(local, tls_mode=mode, tls_ca=secured.ca)
    # The certificate is not for the address, which is of no concern to verify-ca.
    await reach(secured.at("127.0.0.1"), tls_mode="verify-ca", tls_ca=secured.ca)
    assert secured.front.seen == ["plain", "tls", "tls", "tls", "tls", "tls"]


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        ("127.0.0.1", {"tls_mode": "verify-full", "tls_ca": "ca"}),
        ("localhost", {"tls_mode": "verify-full", "tls_ca": "stranger"}),
        ("localhost", {"tls_mode": "verify-ca", "tls_ca": "stranger"}),
        ("localhost", {"tls_mode": "verify-full"}),
    ],
    ids=["another-name", "stranger", "stranger-ca", "system-store"],
)
async def test_a_server_that_is_not_proven_is_unavailable(
    secured: Secured, host: str, changes: dict[str, str]
) -> None:
    files = {"ca": secured.ca, "stranger": secured.stranger}
    given = {name: files.get(value, value) for name, value in changes.items()}
    with pytest.raises(UnavailableError):
        await reach(secured.at(host), **given)
    assert "plain" not in secured.front.seen


async def test_a_server_without_tls_is_unavailable_where_it_is_required(postgres_url: str) -> None:
    await reach(postgres_url, tls_mode="prefer")
    for mode in ("require", "verify-ca", "verify-full"):
        with pytest.raises(UnavailableError):
            await reach(postgres_url, tls_mode=mode)


async def test_migrations_go_over_tls_too(secured: Secured) -> None:
    settings = DatabaseSettings.model_validate(
        {"url": secured.at("localhost"), "tls_mode": "verify-full", "tls_ca": secured.ca}
    )
    await asyncio.to_thread(migrate.check, settings)
    assert secured.front.seen == ["tls"]


def test_a_file_without_a_certificate_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for path in (tmp_path / "no.pem", tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ValidationError, match="holds no certificate that can be read"):
            DatabaseSettings.model_validate({"url": "postgresql://u:p@h/d", "tls_ca": path})
