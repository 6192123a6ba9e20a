"""What endpoints ask for."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from service.container import Container
from service.db.session import UnitOfWork
from service.http.client_address import from_inside


def container_of(request: Request) -> Container:
    container: Container = request.app.state.container
    return container


async def unit_of_work(container: Annotated[Container, Depends(container_of)]) -> AsyncIterator[UnitOfWork]:
    async with container.database.unit() as unit:
        yield unit


def is_inside(request: Request, container: Annotated[Container, Depends(container_of)]) -> bool:
    return from_inside(request.scope, container.settings.app.operations_networks)


CurrentContainer = Annotated[Container, Depends(container_of)]
# The scope makes it commit before the answer is sent: a 201 says that the row is there.
CurrentUnit = Annotated[UnitOfWork, Depends(unit_of_work, scope="function")]
# Whether the request came from the operations networks and through no proxy.
Inside = Annotated[bool, Depends(is_inside)]
