"""A small real server that follows the service's HTTP contract, and on demand breaks it in one way.

Run as a process: `python target_server.py PORT FAULT`, with one of FAULTS.
"""

import asyncio
import itertools
import secrets
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FAULTS = ("none", "slow", "errors", "wrong-body", "wrong-id", "never-settles", "unready", "no-items")
SETTLE_SECONDS = 0.15


class Api:
    """Transactions in memory; each settles a little after it was made."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.items: dict[str, dict[str, Any]] = {}
        self.calls = itertools.count(1)
        self.headers_seen: set[str] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health/ready", self.ready),
                Route("/seen", self.seen),
                Route("/v1/transactions", self.create, methods=["POST"]),
                Route("/v1/transactions", self.page),
                Route("/v1/transactions/{id}", self.get),
            ]
        )

    async def ready(self, _request: Request) -> Response:
        return answer(503 if self.fault == "unready" else 200, {})

    async def seen(self, _request: Request) -> Response:
        return answer(
            200,
            {
                "headers": sorted(self.headers_seen),
                "references": [item["reference"] for item in self.items.values()],
            },
        )

    async def create(self, request: Request) -> Response:
        if (fault := await self.disturbed(request)) is not None:
            return fault
        body = orjson.loads(await request.body())
        item = {**body, "id": str(uuid.uuid4()), "status": "pending", "createdAt": datetime.now(UTC)}
        self.items[item["id"]] = item
        return answer(201, item)

    async def get(self, request: Request) -> Response:
        if (fault := await self.disturbed(request)) is not None:
            return fault
        item = self.items.get(request.path_params["id"])
        if item is None:
            return answer(404, None)
        age = (datetime.now(UTC) - item["createdAt"]).total_seconds()
        if age > SETTLE_SECONDS and self.fault != "never-settles":
            item["status"] = "settled"
        return answer(200, {**item, "id": str(uuid.uuid4())} if self.fault == "wrong-id" else item)

    async def page(self, request: Request) -> Response:
        if (fault := await self.disturbed(request)) is not None:
            return fault
        limit = int(request.query_params["limit"])
        begin = int(request.query_params.get("cursor", "0"))
        found = [] if self.fault == "no-items" else list(reversed(self.items.values()))
        following = str(begin + limit) if begin + limit < len(found) else None
        return answer(200, found[begin : begin + limit], {"page": {"limit": limit, "nextCursor": following}})

    async def disturbed(self, request: Request) -> Response | None:
        self.headers_seen.update(request.headers)
        if self.fault == "slow":
            await asyncio.sleep(0.35)
        if self.fault == "errors" and next(self.calls) % 20 == 0:
            return answer(500, None)
        if self.fault == "wrong-body":
            return Response(b"<html>it works</html>", media_type="text/html")
        return None


def answer(status: int, data: Any, meta: dict[str, Any] | None = None) -> Response:
    """The service's frame, with a trace of its own."""
    frame: dict[str, Any] = {"statusCode": status, "message": "", "data": data, "meta": meta or {}}
    if status >= 400:
        frame["error"] = {"code": "internal" if status >= 500 else "not_found", "message": "", "fields": []}
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return Response(orjson.dumps(frame), status, {"traceresponse": trace}, media_type="application/json")


async def serve(port: int, fault: str) -> None:
    """Serve until terminated."""
    from granian.constants import Interfaces  # noqa: PLC0415 - only the process needs a server
    from granian.server.embed import Server  # noqa: PLC0415

    await Server(Api(fault).app(), address="127.0.0.1", port=port, interface=Interfaces.ASGI).serve()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
