"""Smaller answers for clients that take gzip."""

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp

# What is stored is passed on as it is: most of it is compressed already, and it is streamed.
_AS_IT_IS = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/pdf",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "multipart/byteranges",
)
_LEVEL = 5  # of 9: nearly as small as the best, at a third of its time


def compressed(app: ASGIApp, *, min_bytes: int) -> ASGIApp:
    """A layer that gzips answers of at least `min_bytes`. Event streams and binary content stay."""
    return GZipMiddleware(app, min_bytes, _LEVEL, exclude_content_types=_AS_IT_IS)
