"""The one frame of every JSON answer: `{statusCode, message, data, meta}`, and `error` when it failed."""

from typing import Any, Generic, TypeVar

import orjson
from opentelemetry import trace
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from observability import current
from service.errors import ServiceError
from service.http.pagination import KeysetPage

T = TypeVar("T")


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class PageMeta(_Camel):
    """The page that was asked for; `nextCursor` is null on the last."""

    limit: int
    next_cursor: str | None = None


class Meta(_Camel):
    """What to quote when asking about this answer. `traceId` is empty when telemetry is off."""

    request_id: str
    trace_id: str


class ListMeta(Meta):
    """Meta of a list."""

    page: PageMeta


class Success(_Camel, Generic[T]):
    """An answer that went well."""

    status_code: int
    message: str
    data: T
    meta: Meta


class SuccessList(_Camel, Generic[T]):
    """One page of a list."""

    status_code: int
    message: str
    data: list[T]
    meta: ListMeta


class FieldError(_Camel):
    """What is wrong with one field, named as in the request."""

    field: str
    message: str


class ErrorBody(_Camel):
    """`code` is stable; `message` is for people."""

    code: str
    message: str
    fields: list[FieldError]


class Failure(_Camel):
    """An answer that did not."""

    status_code: int
    message: str
    data: None = None
    error: ErrorBody
    meta: Meta


def success(data: T, message: str = "OK", *, status: int = 200) -> Success[T]:
    return Success[Any](status_code=status, message=message, data=data, meta=Meta(**_ids()))


def success_list(page: KeysetPage[Any], items: list[T], message: str = "OK") -> SuccessList[T]:
    meta = ListMeta(**_ids(), page=PageMeta(limit=page.limit, next_cursor=page.next_cursor))
    return SuccessList[Any](status_code=200, message=message, data=items, meta=meta)


def failure(error: ServiceError) -> Response:
    """The answer to an error. Cheap and without validation: it also serves when little else works."""
    ids = _ids()
    body = {
        "statusCode": error.status,
        "message": error.message,
        "data": None,
        "error": {
            "code": error.code,
            "message": error.message,
            "fields": [{"field": fault.field, "message": fault.message} for fault in error.fields],
        },
        "meta": {"requestId": ids["request_id"], "traceId": ids["trace_id"]},
    }
    return Response(orjson.dumps(body), error.status, headers=error.headers, media_type="application/json")


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for OpenAPI."""
    return {status: {"model": Failure} for status in statuses}


def _ids() -> dict[str, str]:
    span = trace.get_current_span().get_span_context()
    trace_id = format(span.trace_id, "032x") if span.is_valid else ""
    return {"request_id": current().request_id, "trace_id": trace_id}
