"""Values as JSON: orjson writes them, pydantic reads them back and refuses what does not fit."""

from typing import Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from service.infra.cache.errors import CorruptEntryError, UnencodableError

T = TypeVar("T")


class Codec(Generic[T]):
    """Reads and writes one type: a model, a dataclass, `dict[str, int]`, whatever pydantic has a schema for.

    A value that was stored by another version of the code and no longer fits its type is corrupt, and so a
    miss.
    """

    def __init__(self, kind: type[T]) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def encode(self, value: T) -> bytes:
        """JSON, by the fields' own names. Raises UnencodableError."""
        try:
            return orjson.dumps(
                self._adapter.dump_python(value, mode="json", by_alias=False, warnings="error")
            )
        except (TypeError, ValueError, PydanticSerializationError) as error:
            raise UnencodableError(f"{type(value).__name__}: {error}") from error

    def decode(self, raw: bytes) -> T:
        """The value. Raises CorruptEntryError, whose text does not repeat it."""
        try:
            return self._adapter.validate_json(raw, by_alias=False, by_name=True)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, fault["loc"])) or "value" for fault in error.errors()[:3])
            raise CorruptEntryError(f"not what was stored: {places}") from None
