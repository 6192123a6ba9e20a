"""Every store, each new and empty for every test."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from compose.binaries import ProgramUnavailable
from service.infra.storage.interface import Storage
from service.infra.storage.local import LocalStorage
from service.infra.storage.s3 import S3Storage
from service.infra.storage.signing import UrlSigner
from service.settings import FilesSettings
from tests.s3_server import S3Server, s3_server

SECRET = "a-secret-of-the-tests-0123456789-abc"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    try:
        with s3_server(tmp_path_factory.mktemp("s3")) as server:
            yield server
    except ProgramUnavailable as error:
        pytest.skip(str(error))


def s3_settings(variables: dict[str, str], **changes: object) -> FilesSettings:
    """The group from a server's variables."""
    fields = {name.removeprefix("FILES_").lower(): value for name, value in variables.items()}
    return FilesSettings.model_validate(fields | {"s3_retries": 0} | changes)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket(uuid.uuid4().hex)


@pytest.fixture
def s3_storage(s3: S3Server, bucket: str) -> S3Storage:
    return S3Storage(s3_settings(s3.settings(bucket)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def local_storage(root: Path) -> LocalStorage:
    return LocalStorage(root, UrlSigner(SECRET, base="http://files.test/v1/files/signed"))


@pytest.fixture(params=["local", "s3"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    store: Storage = request.getfixturevalue(f"{request.param}_storage")
    yield store
    await store.close()


Leftovers = Callable[[], list[Path]]


@pytest.fixture
def leftovers(request: pytest.FixtureRequest, storage: Storage) -> Leftovers:
    """What an upload has left behind that is no file of the store."""
    if storage.engine == "s3":
        server: S3Server = request.getfixturevalue("s3")
        name: str = request.getfixturevalue("bucket")
        return lambda: server.unfinished(name)
    folder: Path = request.getfixturevalue("root")
    return lambda: [path for path in (folder / ".incoming").rglob("*") if path.is_file()]
