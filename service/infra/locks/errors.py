"""What a lock may answer. Redis being down is a RedisUnavailableFault: 503."""

from service.errors import ConflictError, UnavailableError


class LockNotAcquiredError(ConflictError):
    """Somebody else holds it, and did so throughout the retries.

    409 and not 503: the service is well, and what the caller wants collides with what is being done to the
    same thing. `Retry-After` says when to come again.
    """

    code = "locked"
    message = "Another request is working on the same resource"

    def __init__(self, name: str) -> None:
        super().__init__(headers={"Retry-After": "1"})
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} is locked"


class LockLostError(UnavailableError):
    """The lock ended before the work did: 503, as the same work may succeed later.

    What was written under it counts only as far as it was guarded by the fencing token or undone with the
    transaction.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__()
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} was lost: {self.reason}"
