"""What every store does, one suite over all of them."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from service.errors import ServiceError
from service.infra.storage.errors import ByteRangeError, FileKeyError, FileMissingError, FileTakenError
from service.infra.storage.interface import ByteRange, FileInfo, Storage
from service.infra.storage.s3 import PART_BYTES
from tests.contract.storage.conftest import Leftovers

BLOCK = os.urandom(1 << 20)


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield BLOCK


async def put(
    storage: Storage, key: str, content: bytes = b"hello world", *, overwrite: bool = False
) -> FileInfo:
    return await storage.put(
        key, stream(content), content_type="text/plain", name='résumé; "1".txt', overwrite=overwrite
    )


async def read(storage: Storage, key: str, part: ByteRange | None = None) -> bytes:
    file = await storage.open(key, part)
    try:
        found = b"".join([chunk async for chunk in file.chunks])
    finally:
        await file.close()
    assert len(found) == file.stop - file.start
    return found


async def test_a_file_comes_back_as_it_went_in(storage: Storage) -> None:
    stored = await put(storage, "a/b.txt")
    assert (stored.key, stored.size, stored.content_type) == ("a/b.txt", 11, "text/plain")
    assert stored.name == 'résumé; "1".txt'
    assert stored.etag
    assert abs(datetime.now(UTC) - stored.modified_at) < timedelta(minutes=1)
    found = await storage.stat("a/b.txt")
    assert abs(found.modified_at - stored.modified_at) < timedelta(seconds=5)
    assert found == FileInfo("a/b.txt", 11, "text/plain", stored.etag, found.modified_at, stored.name)
    file = await storage.open("a/b.txt")
    assert file.info == found
    await file.close()
    assert await read(storage, "a/b.txt") == b"hello world"
    assert await storage.exists("a/b.txt")


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
async def test_every_size_around_a_part(storage: Storage, size: int) -> None:
    content = (BLOCK * (size // len(BLOCK) + 1))[:size]
    stored = await storage.put("x", stream(content[:7], b"", content[7:]), content_type="a/b")
    assert stored.size == (await storage.stat("x")).size == size
    assert stored.etag == (await storage.stat("x")).etag
    found = await read(storage, "x")
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()
    assert (await storage.stat("x")).name is None


async def test_a_file_that_is_not_there_is_missing(storage: Storage) -> None:
    await put(storage, "a/b.txt")
    for key in ("a/c.txt", "a", "b", "a/b.txt/c", "x/y/z"):
        with pytest.raises(FileMissingError):
            await storage.stat(key)
        with pytest.raises(FileMissingError):
            await storage.open(key)
        assert not await storage.exists(key)


async def test_deleting_what_is_absent_or_deleted_is_no_error(storage: Storage) -> None:
    await storage.delete("a/b.txt")
    await put(storage, "a/b.txt")
    await storage.delete("a/b.txt")
    await storage.delete("a/b.txt")
    assert not await storage.exists("a/b.txt")
    await put(storage, "a/b.txt")


@pytest.mark.parametrize("size", [11, PART_BYTES + 5])
async def test_a_taken_key_is_refused_unless_overwritten(
    storage: Storage, size: int, leftovers: Leftovers
) -> None:
    first = await put(storage, "a/b.txt", b"first")
    with pytest.raises(FileTakenError) as refused:
        await put(storage, "a/b.txt", b"x" * size)
    assert refused.value.status == 409
    assert await read(storage, "a/b.txt") == b"first"
    second = await put(storage, "a/b.txt", b"y" * size, overwrite=True)
    assert second.etag != first.etag
    assert await read(storage, "a/b.txt") == b"y" * size
    assert leftovers() == []


async def test_of_many_writers_of_one_key_one_wins(storage: Storage, leftovers: Leftovers) -> None:
    contents = [f"writer {number}".encode() for number in range(8)]
    ended = await asyncio.gather(*(put(storage, "k", each) for each in contents), return_exceptions=True)
    won = [each for each in ended if isinstance(each, FileInfo)]
    assert len(won) == 1
    assert [type(each) for each in ended if each not in won] == [FileTakenError] * 7
    assert await read(storage, "k") == contents[ended.index(won[0])]
    assert leftovers() == []


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (ByteRange(0, None), b"hello world"), (ByteRange(6, None), b"world"), (ByteRange(0, 1), b"h"),
        (ByteRange(4, 7), b"o w"), (ByteRange(6, 1000), b"world"), (ByteRange(None, 5), b"world"),
        (ByteRange(None, 1000), b"hello world"), (ByteRange(10, 11), b"d"),
    ],
)  # fmt: skip
async def test_a_part_is_read_alone(storage: Storage, part: ByteRange, expected: bytes) -> None:
    await put(storage, "a")
    assert await read(storage, "a", part) == expected


@pytest.mark.parametrize(
    "part", [ByteRange(11, None), ByteRange(11, 20), ByteRange(None, 0), ByteRange(500, 600)]
)
async def test_a_part_behind_the_end_is_refused(storage: Storage, part: ByteRange) -> None:
    await put(storage, "a")
    with pytest.raises(ByteRangeError) as refused:
        await storage.open("a", part)
    assert refused.value.headers == {"Content-Range": "bytes */11"}


class BrokenStreamError(Exception):
    """The client left."""


@pytest.mark.parametrize("count", [1, 5, 20])
async def test_a_stream_that_breaks_leaves_nothing(
    storage: Storage, count: int, leftovers: Leftovers
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for block in blocks(count):
            yield block
        raise BrokenStreamError

    with pytest.raises(BrokenStreamError):
        await storage.put("a/b.bin", broken(), content_type="a/b")
    assert not await storage.exists("a/b.bin")
    assert await storage.list() == []
    assert leftovers() == []


@pytest.mark.parametrize("count", [1, 20])
async def test_a_cancelled_upload_leaves_nothing(storage: Storage, count: int, leftovers: Leftovers) -> None:
    sent = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        async for block in blocks(count):
            yield block
        sent.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.put("a/b.bin", stuck(), content_type="a/b"))
    await sent.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await storage.exists("a/b.bin")
    assert leftovers() == []


async def test_a_reader_that_stops_early_may_close(storage: Storage) -> None:
    await storage.put("big", blocks(20), content_type="a/b")
    file = await storage.open("big")
    first = await anext(file.chunks)
    assert BLOCK.startswith(first[: len(BLOCK)])
    await file.close()
    unread = await storage.open("big")
    await unread.close()


async def test_a_reader_keeps_what_it_opened_while_it_is_overwritten_or_deleted(storage: Storage) -> None:
    await storage.put("big", blocks(4), content_type="a/b")
    file = await storage.open("big")
    await storage.put("big", stream(b"short"), content_type="a/b", overwrite=True)
    await storage.delete("big")
    found = b"".join([chunk async for chunk in file.chunks])
    await file.close()
    assert found == BLOCK * 4


async def test_a_listing_is_in_the_order_of_keys_and_goes_on_after_one(storage: Storage) -> None:
    keys = ["a-b/1", "a.txt", "a/1", "a/2", "a/b/c", "ab/1", "b/1"]
    for key in keys:
        await put(storage, key)
    entries = await storage.list()
    assert [entry.key for entry in entries] == sorted(keys)
    assert {entry.size for entry in entries} == {11}
    assert [entry.key for entry in await storage.list("a")] == ["a/1", "a/2", "a/b/c"]
    assert [entry.key for entry in await storage.list("a/b")] == ["a/b/c"]
    assert await storage.list("nowhere") == []
    assert await storage.list("a/1") == []
    found: list[str] = []
    while page := await storage.list(limit=2, after=found[-1] if found else ""):
        assert len(page) <= 2
        found += [entry.key for entry in page]
    assert found == sorted(keys)
    assert [entry.key for entry in await storage.list("a", after="a/2")] == ["a/b/c"]


@pytest.mark.parametrize(
    "key", ["", "..", "../x", "/etc/passwd", "a//b", "a\\b", "%2e%2e/x", "a\0", ".incoming/x", "x" * 600]
)
async def test_no_method_takes_what_is_no_key(storage: Storage, key: str) -> None:
    for attempt in (
        put(storage, key),
        storage.open(key),
        storage.stat(key),
        storage.exists(key),
        storage.delete(key),
        storage.signed_url(key, 60),
        storage.list(key or "/"),
    ):
        with pytest.raises(FileKeyError):
            await attempt


@pytest.mark.parametrize("seconds", [0, -5, 604_801])
async def test_a_signed_url_lives_as_long_as_s3_allows(storage: Storage, seconds: int) -> None:
    with pytest.raises(ValueError, match="lives 1 to"):
        await storage.signed_url("a", seconds)


async def test_it_answers_when_asked(storage: Storage) -> None:
    await storage.ping()


async def test_errors_tell_nothing_of_the_place(storage: Storage, root: object) -> None:
    with pytest.raises(ServiceError) as missing:
        await storage.stat("secret/place")
    assert missing.value.message == "There is no such file"
    assert str(root) not in str(missing.value)
