"""What can be done with files beyond what the store does by itself."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service.infra.storage.interface import FileInfo, Storage
from service.infra.storage.sniff import HEAD_BYTES, decide


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was stored, and the SHA-256 of its bytes in hexadecimal."""

    info: FileInfo
    sha256: str


async def upload(
    storage: Storage,
    stream: AsyncIterator[bytes],
    *,
    key: str,
    name: str,
    declared: str,
    allowed: frozenset[str],
    overwrite: bool = False,
) -> Upload:
    """Store what a client sends, under the type that its first bytes say.

    Nothing is kept when the type is refused or the stream ends early.

    Raises:
        UnsupportedTypeError: the content is of no accepted type, or of another than `declared`.
        FileKeyError, FileTakenError, StorageFullError, StorageUnavailableError: as `Storage.put`.
    """
    head = b""
    async for chunk in stream:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    kind = decide(head[:HEAD_BYTES], declared, allowed)
    digest = hashlib.sha256()

    async def whole() -> AsyncIterator[bytes]:
        digest.update(head)
        yield head
        async for chunk in stream:
            digest.update(chunk)
            yield chunk

    info = await storage.put(key, whole(), content_type=kind, name=name, overwrite=overwrite)
    return Upload(info, digest.hexdigest())
