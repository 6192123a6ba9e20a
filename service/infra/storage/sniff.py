"""What a file is, from its first bytes. What the sender calls it counts only where the bytes agree."""

import re

import puremagic

from service.errors import ServiceError

HEAD_BYTES = 8192
UNKNOWN = "application/octet-stream"
_TEXTS = ("text/plain", "text/csv")
# C0 without tab, line feed, form feed and carriage return, and DEL: bytes that a text does not hold.
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
# Formats that are a ZIP archive, by the folder that only they have.
_ZIPPED = {
    b"xl/": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    b"word/": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    b"ppt/": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}


class UnsupportedTypeError(ServiceError):
    """The content is of a type that is not accepted, or is not what it was said to be."""

    code = "unsupported_media_type"
    status = 415
    message = "Files of this type are not accepted"


def sniff(head: bytes) -> tuple[str, ...]:
    """Every type that the first bytes allow, the likeliest first; none when they say nothing.

    A text may be plain text, CSV or JSON, which no byte tells apart. What begins with a tag is markup and
    nothing else: a browser would run it.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return (*(kind for mark, kind in _ZIPPED.items() if mark in head), "application/zip")
    found = _magic(head)
    if not _is_text(head):
        return found
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begin == b"<":
        return found or ("text/html",)
    return tuple(dict.fromkeys((*(("application/json",) if begin in (b"{", b"[") else ()), *_TEXTS, *found)))


def decide(head: bytes, declared: str, allowed: frozenset[str]) -> str:
    """The type to store a file with.

    Args:
        head: its first HEAD_BYTES, or all of it.
        declared: the sender's Content-Type; empty or `application/octet-stream` leaves it to the bytes.
        allowed: the types that are accepted.

    Raises:
        UnsupportedTypeError: the bytes are of no accepted type, or of another than declared.
    """
    wanted = declared.partition(";")[0].strip().lower()
    possible = [kind for kind in sniff(head) if _plain(kind) in {_plain(each) for each in allowed}]
    if not possible:
        raise UnsupportedTypeError
    if wanted in ("", UNKNOWN):
        return possible[0]
    if _plain(wanted) not in {_plain(kind) for kind in possible}:
        raise UnsupportedTypeError("The content is not of the type that it was sent as")
    return wanted


def _magic(head: bytes) -> tuple[str, ...]:
    try:
        matches = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return ()
    return tuple(dict.fromkeys(match.mime_type for match in matches if match.mime_type))


def _is_text(head: bytes) -> bool:
    if _BINARY.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut where the head ends.
        return len(head) >= HEAD_BYTES and error.start >= len(head) - 3
    return True


def _plain(kind: str) -> str:
    """`application/x-gzip` and `application/gzip` are one type."""
    return kind.replace("/x-", "/")
