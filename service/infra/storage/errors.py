"""What can go wrong with files. `outcome` is the label of the operation in the metrics."""

from typing import ClassVar

from service.errors import ConflictError, InvalidRequestError, NotFoundError, ServiceError, UnavailableError


class FileKeyError(InvalidRequestError):
    """The key is not one of ours; nothing was looked up."""

    code = "file_key_invalid"
    message = "The file's key is not valid"
    outcome: ClassVar[str] = "refused"


class FileMissingError(NotFoundError):
    """No file has this key."""

    code = "file_not_found"
    message = "There is no such file"
    outcome: ClassVar[str] = "missing"


class FileTakenError(ConflictError):
    """The key is taken, and the caller did not ask to overwrite."""

    code = "file_exists"
    message = "There is already a file with this key"
    outcome: ClassVar[str] = "taken"


class ByteRangeError(ServiceError):
    """The range begins behind the end of the file; the answer names its size."""

    code = "range_not_satisfiable"
    status = 416
    message = "The range is outside of the file"
    outcome: ClassVar[str] = "refused"

    def __init__(self, size: int) -> None:
        super().__init__(headers={"Content-Range": f"bytes */{size}"})


class SignatureRefusedError(ServiceError):
    """A signed URL was changed, has expired, or is for another method; it does not say which."""

    code = "signature_refused"
    status = 403
    message = "The link is not valid or has expired"
    outcome: ClassVar[str] = "refused"


class StorageFullError(ServiceError):
    """No space or quota left. Nothing of the file was kept."""

    code = "storage_full"
    status = 507
    message = "There is no space left for files"
    outcome: ClassVar[str] = "full"


class StorageUnavailableError(UnavailableError):
    """The storage does not answer, or refuses the service's own credentials."""

    outcome: ClassVar[str] = "unavailable"
