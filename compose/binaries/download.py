"""Downloads that resume, and count only when their SHA-256 is right."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from compose.binaries.errors import SourceError
from compose.binaries.places import Report

TIMEOUT = httpx.Timeout(20.0, connect=4.0)
ATTEMPTS = 3
CHECKSUM_FILE_LIMIT = 1 << 20

_unreachable: dict[str, str] = {}  # host -> why, so that seven programs do not wait seven times


class _CutOffError(Exception):
    """The connection ended before the file did; what arrived is kept."""


def client() -> httpx.Client:
    """A client for releases: follows redirects, gives up on a silent host after seconds."""
    return httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"Accept-Encoding": "identity"})


def fetch(url: str, sha256: str, part: Path, report: Report) -> Path:
    """Bring `url` into `part`, going on from what is there, and check it.

    Raises:
        SourceError: if it cannot be had or is not what was published. A cut-off download stays in `part` for
            the next try; a wrong or unwritable one is removed.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    _transfer(url, part, report)
    if _sha256(part) == sha256:
        return part
    part.unlink()
    if resumed:  # the rest may have been of another file: once more from the start
        report("the resumed download does not match, starting again")
        _transfer(url, part, report)
        if _sha256(part) == sha256:
            return part
        part.unlink()
    raise SourceError(
        f"{url} is not the file that was published: its SHA-256 is not {sha256[:16]}...; "
        "nothing was installed. A proxy may have answered in its place: try again, or on another network"
    )


def published_sha256(url: str, archive: str) -> str:
    """The hash of `archive` in a publisher's checksum file: `hash  name` lines, or the hash alone.

    Raises:
        SourceError: if the file cannot be had or does not name the archive.
    """
    reachable(url)
    try:
        with client() as http, http.stream("GET", url) as answer:
            check_answer(answer)
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > CHECKSUM_FILE_LIMIT:
                    raise SourceError(f"{url} is no checksum file: it is over 1 MB")
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    for line in body.decode(errors="replace").splitlines():
        digest, _, name = line.strip().partition(" ")
        named = name.strip().lstrip("*").rpartition("/")[2]
        if named in {archive, ""} and len(digest) == 64 and set(digest.lower()) <= set("0123456789abcdef"):
            return digest.lower()
    raise SourceError(f"{url} does not name {archive}, so a download could not be checked and was not made")


def _transfer(url: str, part: Path, report: Report) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(url, part, report)
        except (_CutOffError, httpx.TransportError) as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and attempt == 1:
                raise unreachable(url, error) from error
            if attempt == ATTEMPTS:
                have = part.stat().st_size if part.exists() else 0
                raise SourceError(
                    f"{url} was cut off {ATTEMPTS} times ({error}); {have / 1e6:.1f} MB are kept, "
                    "and the next run goes on from there"
                ) from error
            time.sleep(0.2 * attempt)
        except httpx.HTTPError as error:
            raise unreachable(url, error) from error
        except OSError as error:
            raise _unwritable(part, error) from error
        else:
            return


def _stream(url: str, part: Path, report: Report) -> None:
    reachable(url)
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client() as http, http.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is there already, or too much: the hash tells
        check_answer(answer)
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        said = 0.0
        with part.open("ab" if have else "wb") as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                have += len(chunk)
                if time.monotonic() - said > 0.5:
                    said = time.monotonic()
                    report(_progress(url, have, total))
            file.flush()
            os.fsync(file.fileno())
        if total and have < total:
            raise _CutOffError(f"{have} of {total} bytes arrived")


def _progress(url: str, have: int, total: int) -> str:
    of = f" of {total / 1e6:.0f} MB ({100 * have // total} %)" if total else " MB"
    return f"{url.rpartition('/')[2]}: {have / 1e6:.0f}{of}"


def check_answer(answer: httpx.Response) -> None:
    """Refuse what is no file.

    Raises:
        SourceError: on any status but success, and on a redirect from https to http.
    """
    asked = answer.history[0].url if answer.history else answer.url
    if asked.scheme == "https" and answer.url.scheme != "https":
        raise SourceError(f"{asked} redirects to {answer.url.host} without TLS; not followed")
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise SourceError(
            f"{asked} is not there (404): this version has no archive for this platform at that address"
        )
    if not answer.is_success:
        raise SourceError(f"{asked} answered {answer.status_code} {answer.reason_phrase}")


def reachable(url: str) -> None:
    """Raise at once what was learnt of the host before."""
    if why := _unreachable.get(urlsplit(url).netloc):
        raise SourceError(why)


def unreachable(url: str, error: Exception) -> SourceError:
    """The error of a host that does not answer; remembered for this process."""
    parts = urlsplit(url)
    text = f"cannot reach {parts.scheme}://{parts.netloc} ({error or type(error).__name__})"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        _unreachable[parts.netloc] = text
    return SourceError(text)


def _unwritable(part: Path, error: OSError) -> SourceError:
    part.unlink(missing_ok=True)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        free = shutil.disk_usage(part.parent).free
        return SourceError(
            f"no room for {part.name} in {part.parent} ({error.strerror}; {free / 1e6:.0f} MB free): "
            "make room there, or set XDG_CACHE_HOME to a larger disk; nothing was installed"
        )
    return SourceError(f"cannot write {part} ({error.strerror or error}); nothing was installed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
