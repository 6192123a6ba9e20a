"""Keys: where a file lies below its root. A key is checked against what is allowed, never cleaned.

What is not plain ASCII letters, digits, `.`, `_`, `-` and single slashes is refused, and so are segments that
begin or end with a dot: then no spelling of `..`, no encoding, no drive, no NUL and no look-alike character
has to be thought of. The name that people see is kept beside the key.
"""

import re
import unicodedata
from datetime import date
from uuid import UUID

from service.errors import FieldFault, InvalidRequestError
from service.infra.storage.errors import FileKeyError

MAX_KEY = 512
MAX_SEGMENT = 200
MAX_NAME = 255
_SLUG = 80
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
# Windows opens a device for these in any folder, also with an extension.
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE
)


def check_key(key: str) -> str:
    """The key, if it is one. Raises FileKeyError, which says why not."""
    if not key:
        raise _fault("is empty")
    if len(key) > MAX_KEY:
        raise _fault(f"is longer than {MAX_KEY} characters")
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise _fault("has a segment that is empty, begins or ends with a dot, or holds other characters "
                         "than letters, digits, dots, hyphens and underscores")  # fmt: skip
        if len(segment) > MAX_SEGMENT:
            raise _fault(f"has a segment longer than {MAX_SEGMENT} characters")
        if _DEVICES.fullmatch(segment):
            raise _fault("has a segment that names a device")
    return key


def check_folder(folder: str) -> str:
    """A folder is a key without a file, or empty for the root. Raises FileKeyError."""
    return check_key(folder) if folder else folder


def check_name(name: str) -> str:
    """The name that people see: any script, no path, nothing invisible. Raises InvalidRequestError."""
    if not name.strip() or len(name) > MAX_NAME:
        raise InvalidRequestError(fields=[FieldFault("name", f"must have 1 to {MAX_NAME} characters")])
    if any(char in "/\\" or unicodedata.category(char)[0] == "C" for char in name):
        raise InvalidRequestError(
            fields=[FieldFault("name", "must not hold slashes, control or invisible characters")]
        )
    return name


def by_date(name: str, *, on: date, unique: UUID) -> str:
    """Such as `2026/11/21/<uuid>-report.pdf`."""
    return check_key(f"{on:%Y/%m/%d}/{unique}-{slug(name)}")


def by_resource(resource: str, name: str, *, unique: UUID) -> str:
    """Such as `users/avatars/42/<uuid>-me.png` for the resource `users/avatars/42`. Raises FileKeyError."""
    return check_key(f"{resource}/{unique}-{slug(name)}")


def slug(name: str) -> str:
    """A name as the end of a key: ASCII, no spaces, its extension kept; `file` when nothing is left."""
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", _ascii(stem)).strip("-")[:_SLUG].strip("-") or "file"
    extension = re.sub(r"[^A-Za-z0-9]+", "", _ascii(extension))[:10]
    return f"{stem}.{extension}" if extension else stem


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _fault(message: str) -> FileKeyError:
    return FileKeyError(fields=[FieldFault("key", message)])
