"""`/v1/files` over HTTP: what comes in, what goes out, and what is refused with the frame."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.settings import SettingsError
from tests.integration.service.conftest import Configure
from tests.integration.service.harness import Service, running

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 40
CONTENT = "/v1/files/content"


@pytest.fixture
async def files(configure: Configure, tmp_path: Path) -> AsyncIterator[Service]:
    """The service with its files in an empty folder, for uploads of up to 3 MB."""
    settings = configure(
        FILES_ROOT=tmp_path / "root", FILES_MAX_BYTES=3_000_000, FILES_PUBLIC_URL="http://test",
        FILES_SIGNING_KEY="k7Jq-vX2mB9s_dW4tYz8LrN1pHc6FgA3eU5",
    )  # fmt: skip
    async with running(settings) as service:
        yield service


async def upload(
    service: Service, key: str, content: bytes = b"hello world", **options: str
) -> httpx.Response:
    headers = {"Content-Type": options.pop("type", "text/plain")}
    return await service.http.put(f"{CONTENT}/{key}", content=content, headers=headers, params=options)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["statusCode"], body["error"]["code"], body["data"]) == (status, code, None)
    assert body["meta"]["requestId"] == answer.headers["x-request-id"]


async def test_a_file_goes_in_and_comes_out(files: Service) -> None:
    answer = await files.http.post(
        CONTENT, params={"name": "résumé 1.txt"}, content=b"hello", headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    assert data["key"].startswith(f"{datetime.now(UTC):%Y/%m/%d}/")
    assert data["key"].endswith("-resume-1.txt")
    assert (data["name"], data["contentType"], data["size"]) == ("résumé 1.txt", "text/plain", 5)
    assert data["sha256"] == hashlib.sha256(b"hello").hexdigest()
    found = await files.http.get(f"{CONTENT}/{data['key']}")
    assert (found.status_code, found.content) == (200, b"hello")
    headers = found.headers
    assert headers["content-type"].startswith("text/plain")
    assert headers["content-disposition"] == (
        "attachment; filename=\"r_sum_ 1.txt\"; filename*=UTF-8''r%C3%A9sum%C3%A9%201.txt"
    )
    assert (headers["content-length"], headers["accept-ranges"]) == ("5", "bytes")
    assert headers["etag"] == f'"{data["etag"]}"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private, no-cache"
    assert "default-src 'none'" in headers["content-security-policy"]
    head = await files.http.head(f"{CONTENT}/{data['key']}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")


async def test_a_file_of_a_resource_lies_with_it(files: Service) -> None:
    answer = await files.http.post(
        CONTENT, params={"name": "me.png", "resource": "users/avatars/42"}, content=PNG
    )
    data = answer.json()["data"]
    assert data["key"].startswith("users/avatars/42/")
    assert data["contentType"] == "image/png"
    bad = await files.http.post(CONTENT, params={"name": "me.png", "resource": "users/../.."}, content=PNG)
    refused(bad, 422, "file_key_invalid")
    refused(await files.http.post(CONTENT, params={"name": "a/b"}, content=PNG), 422, "validation_failed")
    refused(await files.http.post(CONTENT, content=PNG), 422, "validation_failed")


async def test_conditions_and_ranges(files: Service) -> None:
    etag = (await upload(files, "a.txt")).json()["data"]["etag"]

    async def get(**headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await files.http.get(f"{CONTENT}/a.txt", headers=named)

    for current in (f'"{etag}"', f'W/"{etag}"', f'"x", "{etag}"', "*"):
        answer = await get(if_none_match=current)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{etag}"')
    assert (await get(if_none_match='"other"')).status_code == 200
    part = await get(range="bytes=6-8")
    assert (part.status_code, part.content) == (206, b"wor")
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 6-8/11", "3")
    assert (await get(range="bytes=-5")).content == b"world"
    assert (await get(range="bytes=6-")).content == b"world"
    assert (await get(range="bytes=0-999")).headers["content-range"] == "bytes 0-10/11"
    behind = await get(range="bytes=11-")
    refused(behind, 416, "range_not_satisfiable")
    assert behind.headers["content-range"] == "bytes */11"
    for ignored in ("bytes=0-1,3-4", "bytes=5-2", "bytes=-", "bytes=a-b", "items=0-1", f"bytes={'9' * 50}-"):
        assert (await get(range=ignored)).status_code == 200
    assert (await get(range="bytes=0-1", if_range=f'"{etag}"')).status_code == 206
    assert (await get(range="bytes=0-1", if_range='"other"')).content == b"hello world"


async def test_what_is_no_longer_or_already_there(files: Service) -> None:
    refused(await files.http.get(f"{CONTENT}/a.txt"), 404, "file_not_found")
    assert (await files.http.delete(f"{CONTENT}/a.txt")).status_code == 204
    assert (await upload(files, "a.txt")).status_code == 201
    refused(await upload(files, "a.txt", b"other"), 409, "file_exists")
    assert (await files.http.get(f"{CONTENT}/a.txt")).content == b"hello world"
    assert (await upload(files, "a.txt", b"other", overwrite="true")).status_code == 201
    assert (await files.http.get(f"{CONTENT}/a.txt")).content == b"other"
    assert (await files.http.delete(f"{CONTENT}/a.txt")).status_code == 204
    refused(await files.http.get(f"{CONTENT}/a.txt"), 404, "file_not_found")


async def test_the_content_decides_the_type(files: Service, tmp_path: Path) -> None:
    program = b"MZ\x90\0\x03\0\0\0\x04" + b"\0" * 200
    for content, declared in (
        (program, "image/png"),
        (program, "application/octet-stream"),
        (b"<script>alert(1)</script>", "text/plain"),
        (b"<svg onload=alert(1)>", "image/png"),
        (PNG, "image/jpeg"),
        (PNG, "text/html"),
    ):
        refused(await upload(files, "a", content, type=declared), 415, "unsupported_media_type")
    assert not (tmp_path / "root" / "a").exists()


async def test_uploads_have_a_limit_of_their_own_and_the_rest_keeps_its(
    files: Service, tmp_path: Path
) -> None:
    limit = files.container.settings.files.max_bytes
    assert limit > files.container.settings.app.body_limit_bytes
    assert (await upload(files, "largest", b"a" * limit)).status_code == 201
    refused(await upload(files, "larger", b"a" * (limit + 1)), 413, "payload_too_large")

    async def undeclared() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"a" * 100_000

    answer = await files.http.put(f"{CONTENT}/chunked", content=undeclared())
    refused(answer, 413, "payload_too_large")
    body = b'{"key": "' + b"a" * 2_000_000 + b'"}'
    refused(await files.http.post("/v1/files/signed-urls", content=body), 413, "payload_too_large")
    refused(await files.http.post("/v1/files/contents", content=body), 413, "payload_too_large")
    refused(await files.http.post("/v1/transactions", content=body), 413, "payload_too_large")
    left = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["largest"]


async def signed(service: Service, key: str, **body: object) -> str:
    answer = await service.http.post("/v1/files/signed-urls", json={"key": key} | body)
    assert answer.status_code == 201, answer.text
    url: str = answer.json()["data"]["url"]
    return url


async def test_a_signed_link_reads_its_file_and_nothing_else(files: Service) -> None:
    await upload(files, "a/b.txt", name="b.txt")
    await upload(files, "a/c.txt")
    url = await signed(files, "a/b.txt", expiresInSeconds=60)
    assert urlsplit(url).path == "/v1/files/signed/a/b.txt"
    answer = await files.http.get(url)
    assert (answer.status_code, answer.content) == (200, b"hello world")
    assert (await files.http.head(url)).status_code == 200
    assert (await files.http.get(url, headers={"Range": "bytes=0-4"})).content == b"hello"
    for changed in (
        url.replace("b.txt", "c.txt"),
        url.replace("expires=", "expires=1"),
        url[:-2],
        url.partition("&")[0],
        url.partition("?")[0],
        url + "A",
    ):
        refused(await files.http.get(changed), 403, "signature_refused")
    for method in ("PUT", "DELETE", "POST"):
        refused(await files.http.request(method, url), 405, "method_not_allowed")
    await files.http.delete(f"{CONTENT}/a/b.txt")
    refused(await files.http.get(url), 404, "file_not_found")


async def test_a_signed_link_is_for_a_file_that_is_there_and_a_bounded_time(files: Service) -> None:
    await upload(files, "a.txt")
    for body, status in (
        ({"key": "b.txt"}, 404),
        ({"key": "../a"}, 422),
        ({"key": "a.txt", "expiresInSeconds": 0}, 422),
        ({"key": "a.txt", "expiresInSeconds": 604_801}, 422),
        ({"key": "a.txt", "x": 1}, 422),
        ({}, 422),
    ):
        answer = await files.http.post("/v1/files/signed-urls", json=body)
        assert answer.status_code == status, answer.text


async def test_without_the_api_only_signed_links_answer(files: Service, configure: Configure) -> None:
    await upload(files, "a.txt")
    url = await signed(files, "a.txt")
    async with running(configure(FILES_API_ENABLED="false")) as closed:
        for attempt in (upload(closed, "b.txt"), closed.http.get(f"{CONTENT}/a.txt")):
            refused(await attempt, 404, "not_found")
        refused(await closed.http.post("/v1/files/signed-urls", json={"key": "a.txt"}), 404, "not_found")
        assert (await closed.http.get(url)).content == b"hello world"


async def test_metrics_and_spans_tell_what_was_done(files: Service) -> None:
    await upload(files, "a.txt")
    await upload(files, "a.txt")
    await files.http.get(f"{CONTENT}/a.txt")
    await files.http.get(f"{CONTENT}/b.txt")

    def count(operation: str, outcome: str) -> float | None:
        labels = {"operation": operation, "outcome": outcome}
        return files.metric("yardstick_files_operations_total", labels)

    assert count("put", "ok") == count("put", "taken") == 1
    assert count("open", "ok") == count("open", "missing") == count("read", "ok") == 1
    assert files.metric("yardstick_files_bytes_total", {"direction": "in"}) == 22
    assert files.metric("yardstick_files_bytes_total", {"direction": "out"}) == 11
    assert files.metric("yardstick_files_operation_duration_seconds_count", {"operation": "put"}) == 2
    puts = files.spans("files put")
    assert [span.attributes["yardstick.files.outcome"] for span in puts if span.attributes] == ["ok", "taken"]
    servers = {span.context.span_id for span in files.spans("PUT /v1/files/content/{key:path}")}
    assert {span.parent.span_id for span in puts if span.parent} == servers
    health = (await files.http.get("/health")).json()["data"]
    assert health["dependencies"]["files"]["status"] == "up"


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"FILES_ENGINE": "s3"}, "FILES_S3_BUCKET: is needed by FILES_ENGINE=s3"),
        ({"FILES_S3_ACCESS_KEY": "a"}, "FILES_S3_SECRET_KEY: goes together with FILES_S3_ACCESS_KEY"),
        ({"FILES_ALLOWED_TYPES": "image/png,x"}, "FILES_ALLOWED_TYPES: holds 'x'"),
        ({"FILES_PUBLIC_URL": "ftp://x"}, "FILES_PUBLIC_URL: must start with http:// or https://"),
        ({"FILES_S3_ENDPOINT": "files.test:9000"}, "FILES_S3_ENDPOINT: must start with http:// or https://"),
        ({"FILES_MAX_BYTES": "0"}, "FILES_MAX_BYTES:"),
        ({"APP_ENV": "staging"}, "FILES_SIGNING_KEY: is missing"),
        (
            {"APP_ENV": "production", "FILES_SIGNING_KEY": "change-me-to-32-characters-or-more"},
            "FILES_SIGNING_KEY: is a placeholder",
        ),
        (
            {"APP_ENV": "production", "FILES_SIGNING_KEY": "short-one"},
            "FILES_SIGNING_KEY: is shorter than 32",
        ),
        (
            {"APP_ENV": "production", "FILES_API_ENABLED": "true"},
            "FILES_API_ENABLED: is refused in production",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(
    configure: Configure, variables: dict[str, str], fault: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        configure(**variables)
    faults = [each for each in refusal.value.faults if each.startswith("FILES_")]
    assert any(each.startswith(fault) for each in faults), refusal.value
    assert "short-one" not in str(refusal.value)
