"""Who may administer jobs: whoever has `QUEUE_ADMIN_TOKEN`, until the service knows users and permissions."""

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.errors import NotFoundError, UnauthenticatedError
from service.http.dependencies import CurrentContainer

_bearer = HTTPBearer(
    auto_error=False, scheme_name="jobsAdmin", description="The operators' token, QUEUE_ADMIN_TOKEN"
)


async def jobs_admin(
    container: CurrentContainer,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Raises NotFoundError where no token is set; UnauthenticatedError without that token."""
    token = container.settings.queue.admin_token
    if token is None:
        raise NotFoundError
    if given is None:
        raise UnauthenticatedError(headers={"WWW-Authenticate": 'Bearer realm="jobs"'})
    # Bytes, since texts with other characters than ASCII cannot be compared in constant time.
    if not hmac.compare_digest(given.credentials.encode(), token.get_secret_value().encode()):
        raise UnauthenticatedError(
            "The token is wrong",
            headers={"WWW-Authenticate": 'Bearer realm="jobs", error="invalid_token"'},
        )
