"""What clients send and get."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from service.infra.storage.interface import MAX_URL_SECONDS
from service.infra.storage.keys import MAX_KEY


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class FileView(_Camel):
    """A stored file; `sha256` is of the bytes as they arrived."""

    key: str
    name: str
    content_type: str
    size: int
    etag: str
    sha256: str
    modified_at: datetime


class SignedUrlCreate(_Camel):
    """A link to ask for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY)]
    expires_in_seconds: Annotated[int, Field(ge=1, le=MAX_URL_SECONDS)] | None = None


class SignedUrlView(_Camel):
    """A link that reads one file until it expires."""

    url: str
    expires_at: datetime
