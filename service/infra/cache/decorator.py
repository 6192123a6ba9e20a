"""`@cached`: an async function whose results are cached."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial, wraps
from types import NoneType, UnionType
from typing import (
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from service.infra.cache.cache import Cache
from service.infra.cache.filler import always
from service.infra.cache.names import render

P = ParamSpec("P")
T = TypeVar("T")


class HasCache(Protocol):
    """The first parameter of a cached function: a container, or the `self` of a method."""

    @property
    def cache(self) -> Cache: ...


H = TypeVar("H", bound=HasCache)


def cached(
    domain: str, *, key: str, tags: Iterable[str] = (), keep: Callable[[Any], bool] = always
) -> Callable[[Callable[Concatenate[H, P], Awaitable[T]]], Callable[Concatenate[H, P], Awaitable[T]]]:
    """Cache what an async function returns; None is "there is no such thing" and cached for a short time.

        @cached("users", key="{user_id}", tags=("tenant:{tenant}",))
        async def find(self, tenant: str, user_id: UUID) -> User | None: ...

    Args:
        domain: a name of the table of domains.
        key: template over the function's arguments. It names the entry within the domain: two functions of
            one domain need templates that differ.
        tags: templates as well.
        keep: whether a result may be cached.

    Raises:
        CacheKeyError: at the call, for an argument whose text does not stand for its value.
    """
    templates = tuple(tags)

    def decorate(
        function: Callable[Concatenate[H, P], Awaitable[T]],
    ) -> Callable[Concatenate[H, P], Awaitable[T]]:
        signature = inspect.signature(function)
        kinds: list[Any] = []

        @wraps(function)
        async def wrapper(holder: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
            if not kinds:  # at the first call: a forward reference cannot be resolved earlier
                kinds.append(_without_none(get_type_hints(function)["return"]))
            bound = signature.bind(holder, *args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments
            result: Any = await holder.cache.region(domain, kinds[0]).get(
                render(key, values),
                partial(function, holder, *args, **kwargs),
                tags=[render(tag, values) for tag in templates],
                keep=keep,
            )
            return cast("T", result)  # None included: the function says so itself

        return wrapper

    return decorate


def _without_none(kind: Any) -> Any:
    """`User | None` -> `User`: what is stored is never None."""
    if get_origin(kind) in (Union, UnionType):
        kinds = tuple(part for part in get_args(kind) if part is not NoneType)
        return Union[kinds]  # noqa: UP007 - made from a tuple
    return kind
