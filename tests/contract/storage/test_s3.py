"""The S3 store's own: signed URLs that the server checks, a server that is away or refuses."""

import asyncio
import socket
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from service.infra.storage.errors import StorageUnavailableError
from service.infra.storage.s3 import S3Storage
from tests.contract.storage.conftest import s3_settings
from tests.contract.storage.test_storage import blocks, put
from tests.s3_server import S3Server


async def test_a_signed_url_reads_one_file_with_its_type_and_name(s3_storage: S3Storage) -> None:
    await put(s3_storage, "a/b.txt")
    url = await s3_storage.signed_url("a/b.txt", 60)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]
    async with httpx.AsyncClient() as http:
        answer = await http.get(url)
        assert (answer.status_code, answer.text) == (200, "hello world")
        assert answer.headers["content-type"] == "text/plain"
        assert "filename*=UTF-8''r%C3%A9sum%C3%A9%3B%20%221%22.txt" in answer.headers["content-disposition"]


async def test_a_signed_url_refuses_another_method_key_time_and_signature(s3_storage: S3Storage) -> None:
    await put(s3_storage, "a/b.txt")
    await put(s3_storage, "a/c.txt")
    url = await s3_storage.signed_url("a/b.txt", 60)
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 200
        for method in ("DELETE", "PUT"):
            assert (await http.request(method, url)).status_code == 403
        for changed in (
            url.replace("a/b.txt", "a/c.txt"),
            url.replace("Expires=60", "Expires=6000"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
        ):
            assert (await http.get(changed)).status_code == 403, changed
    assert await s3_storage.exists("a/b.txt")


async def test_a_signed_url_expires(s3_storage: S3Storage) -> None:
    await put(s3_storage, "a/b.txt")
    url = await s3_storage.signed_url("a/b.txt", 4)  # by whole seconds, of which the first has begun
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 200
        await asyncio.sleep(4.1)
        assert (await http.get(url)).status_code == 403


async def test_a_signed_url_leads_where_clients_reach_the_server(s3: S3Server, bucket: str) -> None:
    settings = s3_settings(s3.settings(bucket), s3_public_endpoint="https://files.example.com")
    url = await S3Storage(settings).signed_url("a/b.txt", 60)
    assert url.startswith(f"https://files.example.com/{bucket}/a/b.txt?")


async def test_a_server_that_is_away_is_503(s3: S3Server, bucket: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        storage = S3Storage(s3_settings(s3.settings(bucket), s3_endpoint=away))
        for attempt in (
            put(storage, "a"),
            storage.put("big", blocks(20), content_type="a/b", overwrite=True),
            storage.stat("a"),
            storage.open("a"),
            storage.delete("a"),
            storage.list(),
            storage.ping(),
        ):
            with pytest.raises(StorageUnavailableError) as away_error:
                await attempt
            assert away_error.value.status == 503
            assert "127.0.0.1" not in str(away_error.value)


async def test_a_server_that_is_silent_is_503(s3: S3Server, bucket: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = s3_settings(s3.settings(bucket), s3_endpoint=url, s3_read_timeout_seconds=0.5)
        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailableError):
                await S3Storage(settings).stat("a")


@pytest.mark.parametrize(
    "change", [{"s3_secret_key": "wrong"}, {"s3_access_key": "nobody"}, {"s3_bucket": "no-such-bucket"}]
)
async def test_credentials_or_a_bucket_that_are_wrong_are_503(
    s3: S3Server, bucket: str, change: dict[str, str]
) -> None:
    storage = S3Storage(s3_settings(s3.settings(bucket), **change))
    with pytest.raises(StorageUnavailableError):
        await put(storage, "a")
