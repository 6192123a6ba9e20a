"""`/v1/stream`: server-sent events, and `/v1/stream/ws`: WebSocket."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, WebSocket
from starlette.requests import HTTPConnection

from observability import bind
from service.container import Container
from service.errors import FieldFault, InvalidRequestError, NotFoundError, ServiceError
from service.features.live.access import Principal
from service.http.dependencies import CurrentContainer
from service.http.envelope import failures
from service.infra.live.sse import LiveStream
from service.infra.live.websocket import LiveSocket, refuse

router = APIRouter(prefix="/v1/stream", tags=["live"])

Topics = Annotated[
    list[str],
    Query(
        alias="topic",
        description="`transaction.<id>` or `user.<own id>`, repeated for several; without one, one's own",
        examples=[["transaction.6f6f0f0c-8d0a-4c19-9a55-1c2f6a0f1d3e"]],
    ),
]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="Go on after this event; browsers send it by themselves"),
]
After = Annotated[
    str | None, Query(alias="lastEventId", description="The same, for clients that cannot set the header")
]


@router.get("", status_code=200, response_class=LiveStream, responses=failures(401, 403, 404, 422, 503))
async def stream(
    request: Request,
    container: CurrentContainer,
    topics: Topics = [],  # noqa: B006 - FastAPI copies it
    last_event_id: LastEventId = None,
    after: After = None,
) -> LiveStream:
    """Events as they happen, until the client leaves.

    Besides the events there are `ready` (what is seen, and how long to wait before coming back), `reset`
    (events were missed that are no longer kept: read the state anew), `degraded` and `restored` (events
    come late), `closing` (the process ends: come back).
    """
    _, allowed = _permitted(container, request, topics)
    heartbeat = container.settings.live.heartbeat_seconds
    await container.live.started()
    return LiveStream(container.live, allowed, after=last_event_id or after, heartbeat=heartbeat)


@router.websocket("/ws")
async def websocket(
    socket: WebSocket,
    topics: Topics = [],  # noqa: B006 - FastAPI copies it
    after: After = None,
) -> None:
    """The same as JSON texts `{type, ...}`; `subscribe`, `unsubscribe` and `ping` the other way."""
    container: Container = socket.app.state.container
    settings = container.settings.live
    try:
        principal, allowed = _permitted(container, socket, topics)
        await socket.accept()
        await container.live.started()
        live = LiveSocket(
            socket,
            container.live,
            partial(container.live_access.allow, principal),
            heartbeat=settings.heartbeat_seconds,
            max_topics=settings.max_topics,
            max_message=settings.message_bytes,
        )
        await live.run(allowed, after=after)
    except NotFoundError:
        await socket.close()
    except ServiceError as error:
        await refuse(socket, error)


def _permitted(
    container: Container, connection: HTTPConnection, topics: list[str]
) -> tuple[Principal, list[str]]:
    """Who asks, and the topics they get. Raises what the `Authorizer` does, also for too many topics."""
    principal = container.live_access.principal(connection)
    bind(user_id=principal.user)
    limit = container.settings.live.max_topics
    if len(topics) > limit:
        raise InvalidRequestError(fields=[FieldFault("topic", f"must not be given more than {limit} times")])
    return principal, container.live_access.allow(principal, topics or [f"user.{principal.user}"])
