"""Every error that leaves the service: a stable code, a status, and the one translation to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field of the request, named as the client wrote it."""

    field: str
    message: str


class StartError(Exception):
    """The process cannot start; the text is one line for whoever started it."""


class ServiceError(Exception):
    """An error that a client may see. The message is for people and holds nothing internal."""

    code: ClassVar[str] = "internal"
    status: int = 500
    message: str = "Something went wrong on our side"

    def __init__(
        self,
        message: str | None = None,
        *,
        fields: Sequence[FieldFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or type(self).message
        super().__init__(self.message)
        self.fields = tuple(fields)
        self.headers = dict(headers or {})


class InvalidRequestError(ServiceError):
    """The request is understood and wrong."""

    code = "validation_failed"
    status = 422
    message = "The request is not valid"


class UnauthenticatedError(ServiceError):
    """Nobody knows who asks."""

    code = "unauthenticated"
    status = 401
    message = "Say who you are"


class ForbiddenError(ServiceError):
    """It is known who asks, and they may not."""

    code = "forbidden"
    status = 403
    message = "You may not do that"


class NotFoundError(ServiceError):
    """No such thing, or not for this caller."""

    code = "not_found"
    status = 404
    message = "Not found"


class MethodNotAllowedError(ServiceError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    message = "Method not allowed"


class ConflictError(ServiceError):
    """Somebody else was faster; read again and retry."""

    code = "conflict"
    status = 409
    message = "The resource was changed by another request"


class PayloadTooLargeError(ServiceError):
    """The body is over the limit."""

    code = "payload_too_large"
    status = 413
    message = "The request body is too large"


class TooManyRequestsError(ServiceError):
    """The caller asked more than the rate allows; `Retry-After` says when there is room again."""

    code = "rate_limited"
    status = 429
    message = "Too many requests"


class UnavailableError(ServiceError):
    """Something that the service depends on does not answer; the same request may work later."""

    code = "unavailable"
    status = 503
    message = "The service is temporarily unavailable"

    def __init__(self, message: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class OverloadedError(ServiceError):
    """More work waits than may; `Retry-After` says when some of it should be done."""

    code = "overloaded"
    status = 503
    message = "Too much work is waiting; try again later"

    def __init__(self, message: str | None = None, *, retry_after: int = 10) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


_BY_STATUS: Mapping[int, type[ServiceError]] = {
    400: InvalidRequestError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    409: ConflictError,
    413: PayloadTooLargeError,
    429: TooManyRequestsError,
}


class RefusedError(ServiceError):
    """A refusal of the framework that has no class of its own."""

    code = "refused"
    message = "The request was refused"

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def translate(error: Exception) -> ServiceError:
    """The error to answer with. What is not known here is a plain 500 that tells nothing."""
    match error:
        case ServiceError():
            return error
        case RequestValidationError():
            return InvalidRequestError(fields=[_field_fault(fault) for fault in error.errors()])
        case HTTPException():
            return _refusal(error)
        case StaleDataError():
            return ConflictError()
    return ServiceError()


def _refusal(error: HTTPException) -> ServiceError:
    kind = _BY_STATUS.get(error.status_code)
    if kind is not None:
        return kind(headers=error.headers)
    if error.status_code == 503:
        return UnavailableError()
    return RefusedError(error.status_code) if error.status_code < 500 else ServiceError()


def _field_fault(fault: Mapping[str, object]) -> FieldFault:
    location = fault["loc"]
    place = [str(part) for part in location] if isinstance(location, tuple) else []
    if fault["type"] == "json_invalid":
        return FieldFault("body", "is not valid JSON")
    # The first part says where the field was: body, query, path.
    return FieldFault(".".join(place[1:] or place), str(fault["msg"]).removeprefix("Value error, "))
