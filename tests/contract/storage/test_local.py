"""The local store's own: links, a full disk, files of others, a killed process."""

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.infra.storage import disk
from service.infra.storage.errors import (
    FileMissingError,
    FileTakenError,
    StorageFullError,
    StorageUnavailableError,
)
from service.infra.storage.local import LocalStorage
from service.infra.storage.signing import UrlSigner
from tests.contract.storage.test_storage import blocks, put, read


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret")
    return folder


async def test_a_link_to_a_folder_outside_is_no_folder(
    local_storage: LocalStorage, root: Path, outside: Path
) -> None:
    await put(local_storage, "a/b.txt")
    (root / "link").symlink_to(outside)
    (root / "a" / "link").symlink_to(outside)
    # A file of the store's own form, so that only the link can be the reason.
    shutil.copy(root / "a" / "b.txt", outside / "whole.txt")
    for key in ("link/whole.txt", "a/link/whole.txt", "link/secret.txt"):
        with pytest.raises(FileMissingError):
            await local_storage.open(key)
        await local_storage.delete(key)
        with pytest.raises((FileTakenError, StorageUnavailableError)):
            await put(local_storage, key, overwrite=True)
        with pytest.raises((FileTakenError, StorageUnavailableError)):
            await put(local_storage, key.replace(".txt", ".new"))
    assert files(outside) == [outside / "secret.txt", outside / "whole.txt"]
    assert (outside / "secret.txt").read_text() == "secret"
    assert [entry.key for entry in await local_storage.list()] == ["a/b.txt"]
    assert await local_storage.list("link") == []


async def test_a_link_to_a_file_outside_is_no_file(
    local_storage: LocalStorage, root: Path, outside: Path
) -> None:
    await put(local_storage, "a/b.txt")
    shutil.copy(root / "a" / "b.txt", outside / "whole.txt")
    (root / "a" / "link.txt").symlink_to(outside / "whole.txt")
    with pytest.raises(FileMissingError):
        await local_storage.stat("a/link.txt")
    with pytest.raises(FileTakenError):
        await put(local_storage, "a/link.txt")
    await local_storage.delete("a/link.txt")
    assert (outside / "whole.txt").exists()
    await put(local_storage, "a/link.txt", b"new", overwrite=True)
    assert not (root / "a" / "link.txt").is_symlink()
    assert b"new" not in (outside / "whole.txt").read_bytes()


async def test_what_the_store_has_not_written_is_not_there(local_storage: LocalStorage, root: Path) -> None:
    await put(local_storage, "a/b.txt")
    whole = (root / "a" / "b.txt").read_bytes()
    for name, content in {
        "foreign": b"put here by hand", "empty": b"", "short": whole[:-1], "cut": whole[3:],
        "grown": whole + b"x",
        "lies": whole[:11] + b"\xff\xff\xff\xff" + whole[-8:],
    }.items():  # fmt: skip
        (root / "a" / name).write_bytes(content)
        with pytest.raises(FileMissingError):
            await local_storage.stat(f"a/{name}")
    os.mkfifo(root / "a" / "pipe")
    async with asyncio.timeout(5):
        with pytest.raises(FileMissingError):
            await local_storage.stat("a/pipe")
    assert [entry.key for entry in await local_storage.list()] == ["a/b.txt"]


async def test_content_that_looks_like_a_trailer_is_content(local_storage: LocalStorage, root: Path) -> None:
    await put(local_storage, "a", b"inner")
    whole = (root / "a").read_bytes()
    stored = await local_storage.put("b", blocks(0), content_type="text/html")
    assert stored.size == 0
    stored = await put(local_storage, "c", whole)
    assert stored.size == len(whole)
    assert await read(local_storage, "c") == whole
    assert (await local_storage.stat("c")).content_type == "text/plain"


async def test_a_folder_and_a_file_cannot_have_one_key(local_storage: LocalStorage) -> None:
    await put(local_storage, "a/b")
    for key in ("a", "a/b/c"):
        for overwrite in (False, True):
            with pytest.raises(FileTakenError):
                await put(local_storage, key, overwrite=overwrite)
    await local_storage.delete("a")
    assert await read(local_storage, "a/b") == b"hello world"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    options = ["-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


async def test_a_full_disk_is_507_and_leaves_nothing(tiny: Path) -> None:
    storage = LocalStorage(tiny, UrlSigner("x" * 32, base="http://files.test"))
    await storage.put("small", blocks(1), content_type="a/b")
    with pytest.raises(StorageFullError) as full:
        await storage.put("a/big", blocks(5), content_type="a/b")
    assert full.value.status == 507
    assert files(tiny) == [tiny / "small"]
    await storage.put("other", blocks(1), content_type="a/b")
    with pytest.raises(StorageFullError):
        await storage.put("small", blocks(5), content_type="a/b", overwrite=True)
    assert (await storage.stat("small")).size == 1 << 20


async def test_a_root_that_cannot_be_is_503(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = LocalStorage(tmp_path / "file" / "root", UrlSigner("x" * 32, base="http://files.test"))
    for attempt in (put(storage, "a"), storage.ping()):
        with pytest.raises(StorageUnavailableError):
            await attempt


async def test_a_killed_upload_is_no_file_and_is_swept(root: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from service.infra.storage.local import LocalStorage
        from service.infra.storage.signing import UrlSigner

        async def stream():
            for _ in range(3):
                yield b"x" * (1 << 20)
            print("written", flush=True)
            await asyncio.sleep(60)

        storage = LocalStorage(Path(sys.argv[1]), UrlSigner("x" * 32, base="http://files.test"))
        asyncio.run(storage.put("a/b", stream(), content_type="a/b"))
    """)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"written\n"
    child.kill()
    await child.wait()
    [left] = files(root)
    assert left.parent.name == disk.INCOMING
    fresh = LocalStorage(root, UrlSigner("x" * 32, base="http://files.test"))
    assert not await fresh.exists("a/b")
    await put(fresh, "young")
    assert left.exists()
    an_hour_ago = time.time() - 3700
    os.utime(left, (an_hour_ago, an_hour_ago))
    await put(LocalStorage(root, UrlSigner("x" * 32, base="http://files.test")), "old")
    assert not left.exists()


async def test_an_upload_is_seen_whole_or_not_at_all(local_storage: LocalStorage) -> None:
    await put(local_storage, "k", b"a" * 100_000)
    done = asyncio.Event()

    async def write() -> None:
        for letter in (b"b", b"c", b"d", b"e") * 5:
            await put(local_storage, "k", letter * 100_000, overwrite=True)
        done.set()

    async def look() -> AsyncIterator[bytes]:
        while not done.is_set():
            yield await read(local_storage, "k")

    writing = asyncio.create_task(write())
    async for content in look():
        assert len(content) == 100_000
        assert len(set(content)) == 1
    await writing
