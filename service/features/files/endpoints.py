"""`/v1/files`. Uploads are the raw body: one file, one request, no form around it.

Nobody is asked who they are yet: the routes answer where FILES_API_ENABLED says so, which production refuses.
Signed links answer everywhere; their signature is the permission.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.requests import ClientDisconnect

from service.errors import NotFoundError, RefusedError
from service.features.files import operations
from service.features.files.download import download
from service.features.files.schemas import FileView, SignedUrlCreate, SignedUrlView
from service.http.dependencies import CurrentContainer
from service.http.envelope import Success, failures, success
from service.infra.storage import keys
from service.infra.storage.signing import SIGNED_PATH

PREFIX = "/v1/files"
UPLOADS = f"{PREFIX}/content"
"""Bodies below this path may have FILES_MAX_BYTES."""

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"*/*": _BINARY}}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"*/*": _BINARY}, "description": "The file"},
    206: {"content": {"*/*": _BINARY}, "description": "The part of the Range header"},
    304: {"description": "The client's copy is current"},
}


async def files_api(container: CurrentContainer) -> None:
    """Raises NotFoundError where the routes are switched off."""
    settings = container.settings
    enabled = settings.files.api_enabled
    if not (settings.app.env in ("development", "test") if enabled is None else enabled):
        raise NotFoundError


router = APIRouter(prefix=PREFIX, tags=["files"], dependencies=[Depends(files_api)])
signed_router = APIRouter(prefix=SIGNED_PATH, tags=["files"])

Name = Annotated[str, Query(description="The name that people see", max_length=1000)]


@router.post("/content", status_code=201, openapi_extra=_BODY, responses=failures(413, 415, 422, 503, 507))
async def upload(
    request: Request,
    container: CurrentContainer,
    name: Name,
    resource: Annotated[
        str | None,
        Query(description="Keep it with a thing, such as users/avatars/42; by date when not given"),
    ] = None,
) -> Success[FileView]:
    """Store the body under a new key."""
    keys.check_name(name)
    if resource is None:
        key = keys.by_date(name, on=datetime.now(UTC).date(), unique=uuid4())
    else:
        key = keys.by_resource(resource, name, unique=uuid4())
    return await _stored(request, container, key, name, overwrite=False)


@router.put(
    "/content/{key:path}",
    status_code=201,
    openapi_extra=_BODY,
    responses=failures(409, 413, 415, 422, 503, 507),
)
async def upload_at(
    request: Request,
    container: CurrentContainer,
    key: str,
    name: Name | None = None,
    overwrite: Annotated[bool, Query(description="Replace a file that is there; without it, 409")] = False,
) -> Success[FileView]:
    """Store the body under this key."""
    keys.check_key(key)
    shown = key.rpartition("/")[2] if name is None else keys.check_name(name)
    return await _stored(request, container, key, shown, overwrite=overwrite)


@router.api_route(
    "/content/{key:path}",
    methods=["GET", "HEAD"],
    response_model=None,
    responses=_FILE | failures(404, 416, 422, 503),
)
async def get(request: Request, container: CurrentContainer, key: str) -> Response:
    """The file."""
    return await download(container.files, key, request)


@router.delete("/content/{key:path}", status_code=204, responses=failures(422, 503))
async def delete(container: CurrentContainer, key: str) -> None:
    """Delete the file. Of a file that is not there, the answer is the same: afterwards it is gone."""
    await container.files.delete(key)


@router.post("/signed-urls", status_code=201, responses=failures(404, 413, 422, 503))
async def sign(body: SignedUrlCreate, container: CurrentContainer) -> Success[SignedUrlView]:
    """A link that reads one file without credentials, until it expires."""
    await container.files.stat(body.key)
    seconds = body.expires_in_seconds or container.settings.files.url_seconds
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    url = await container.files.signed_url(body.key, seconds)
    return success(SignedUrlView(url=url, expires_at=expires_at), "Link created", status=201)


@signed_router.api_route(
    "/{key:path}",
    methods=["GET", "HEAD"],
    response_model=None,
    responses=_FILE | failures(403, 404, 416, 503),
)
async def get_signed(
    request: Request, container: CurrentContainer, key: str, expires: str = "", signature: str = ""
) -> Response:
    """The file of a signed link. S3's own links lead to S3."""
    container.file_urls.check(request.method, key, expires, signature)
    return await download(container.files, key, request)


async def _stored(
    request: Request, container: CurrentContainer, key: str, name: str, *, overwrite: bool
) -> Success[FileView]:
    try:
        stored = await operations.upload(
            container.files,
            request.stream(),
            key=key,
            name=name,
            declared=request.headers.get("content-type", ""),
            allowed=container.settings.files.types,
            overwrite=overwrite,
        )
    except ClientDisconnect:
        # Nobody reads this; it keeps the client's leaving from counting as the service's fault.
        raise RefusedError(499) from None
    info = stored.info
    view = FileView(
        key=info.key,
        name=name,
        content_type=info.content_type,
        size=info.size,
        etag=info.etag,
        sha256=stored.sha256,
        modified_at=info.modified_at,
    )
    return success(view, "File stored", status=201)
