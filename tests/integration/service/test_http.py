"""What clients get: the frame, the headers, the list, and an answer to everything hostile."""

import base64
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from fastapi import APIRouter

from service.app import create_routes, in_layers
from service.features.transactions.models import Transaction
from service.http.dependencies import CurrentUnit
from tests.integration.service.harness import BODY, Service

JSON = {"content-type": "application/json"}
URL = "/v1/transactions"


def frame(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the frame of a failure; give its error."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"statusCode", "message", "data", "error", "meta"}
    assert body["statusCode"] == status
    assert body["data"] is None
    assert body["message"]
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"code", "message", "fields"}
    assert error["code"] == code
    assert body["meta"]["requestId"] == answer.headers["x-request-id"]
    assert body["meta"]["traceId"] == answer.headers["traceresponse"].split("-")[1]
    assert answer.headers["x-content-type-options"] == "nosniff"
    return error


def faulty(answer: httpx.Response) -> set[str]:
    return {fault["field"] for fault in frame(answer, 422, "validation_failed")["fields"]}


async def test_a_created_transaction_has_the_frame(service: Service) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await service.http.post(URL, json=BODY, headers={"traceparent": trace, "x-request-id": "mine-1"})
    assert answer.status_code == 201
    body = answer.json()
    assert body.keys() == {"statusCode", "message", "data", "meta"}
    assert body["data"].keys() == {
        "id", "amount", "currency", "reference", "status", "createdAt", "updatedAt", "settledAt", "version",
    }  # fmt: skip
    assert body["meta"] == {"requestId": "mine-1", "traceId": "0af7651916cd43dd8448eb211c80319c"}
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["traceresponse"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert answer.headers["cache-control"] == "no-store"
    again = (await service.http.get(f"{URL}/{body['data']['id']}")).json()
    assert again["data"] == body["data"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {"body"}),
        (b"{", {"body"}),
        (b"null", {"body"}),
        (b"[]", {"body"}),
        (b"{}", {"amount", "currency", "reference"}),
        (b"[" * 100_000, set()),
        (b'{"amount":"1","currency":"EUR","reference":"\xff"}', set()),
        (orjson.dumps(BODY | {"amount": 12.5}), {"amount"}),
        (orjson.dumps(BODY | {"amount": None}), {"amount"}),
        (b'{"amount":1e400,"currency":"EUR","reference":"x"}', {"amount"}),
        (b'{"amount":NaN,"currency":"EUR","reference":"x"}', {"amount"}),
        *((orjson.dumps(BODY | {"amount": amount}), {"amount"}) for amount in (
            "NaN", "Infinity", "-1", "0", "0.0000", "1e400", "1e3", "1.00001", "12345678901234567",
            " 1", "1\n", "",
            "\u0661",
        )),
        *((orjson.dumps(BODY | {"currency": currency}), {"currency"}) for currency in (
            "eur", "EU", "EURO", "XQZ", "", 978, "ÄÄÄ",
        )),
        *((orjson.dumps(BODY | {"reference": reference}), {"reference"}) for reference in (
            "", "x" * 141, "nul\0byte", "line\nbreak", 7, ["x"],
        )),
        (b'{"amount":"1","currency":"EUR","reference":"\\ud800"}', None),
        (orjson.dumps(BODY | {"status": "settled"}), {"status"}),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_422(service: Service, body: bytes, fields: set[str] | None) -> None:
    answer = await service.http.post(URL, content=body, headers=JSON)
    found = faulty(answer)
    assert fields is None or found == fields
    assert await service.count(Transaction) == 0


async def test_the_largest_amount_survives(service: Service) -> None:
    created = await service.create(amount="9999999999999999.9999", reference="ü" * 140)
    assert created["amount"] == "9999999999999999.9999"
    [row] = await service.rows(Transaction)
    assert row.amount == Decimal("9999999999999999.9999")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_huge_body_is_413(service: Service, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    body = b" " * 40 * 65_536 if declared else chunks()
    answer = await service.http.post(URL, content=body, headers=JSON)
    frame(answer, 413, "payload_too_large")


async def test_a_huge_body_where_none_is_wanted_is_413(service: Service) -> None:
    answer = await service.http.request("GET", "/nothing/here", content=b"x" * 2_000_000)
    frame(answer, 413, "payload_too_large")


async def test_unknown_paths_and_methods_have_the_frame(service: Service) -> None:
    frame(await service.http.get("/nothing/here"), 404, "not_found")
    frame(await service.http.get(f"{URL}/"), 404, "not_found")
    answer = await service.http.delete(URL)
    frame(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]
    frame(await service.http.get(f"{URL}/{uuid4()}"), 404, "not_found")
    assert faulty(await service.http.get(f"{URL}/not-a-uuid")) == {"transaction_id"}
    frame(await service.http.get(f"{URL}/%00"), 422, "validation_failed")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=100000", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 10_000, "cursor"),
        ("cursor=W10", "cursor"),
        ("sort=id", "sort"),
        ("sort=createdAt;drop", "sort"),
        ("status=gone", "status"),
        ("currency=eur", "currency"),
    ],
)
async def test_a_wrong_query_is_422(service: Service, query: str, field: str) -> None:
    assert faulty(await service.http.get(f"{URL}?{query}")) == {field}


def cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


@pytest.mark.parametrize(
    ("sort", "forged"),
    [
        ("-createdAt", cursor("-createdAt", "2026-11-21", "1")),
        ("-createdAt", cursor("-createdAt", "2026-11-21T00:00:00+00:00", str(1 << 70))),
        ("-createdAt", cursor("-createdAt", 5, 5)),
        ("-createdAt", cursor("amount", "1", "1")),
        ("amount", cursor("amount", "NaN", "1")),
        ("amount", cursor("amount", "1e999999", "1")),
        ("amount", cursor("amount", None, None)),
        ("amount", cursor("amount", {"a": 1}, [])),
    ],
)
async def test_a_forged_cursor_is_422(service: Service, sort: str, forged: str) -> None:
    answer = await service.http.get(URL, params={"sort": sort, "cursor": forged})
    assert faulty(answer) == {"cursor"}


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt", "amount", "-amount"])
async def test_the_pages_of_a_list_are_the_list(service: Service, sort: str) -> None:
    for number in range(11):
        await service.create(amount=str(number % 4 + 1), reference=f"r{number}")
    seen: list[dict[str, Any]] = []
    following: str | None = None
    pages = 0
    while True:
        params = {"limit": "4", "sort": sort} | ({"cursor": following} if following else {})
        body = (await service.http.get(URL, params=params)).json()
        seen += body["data"]
        pages += 1
        following = body["meta"]["page"]["nextCursor"]
        assert body["meta"]["page"]["limit"] == 4
        if following is None:
            break
        # What is added meanwhile moves nothing.
        if pages == 1 and sort in ("-createdAt", "amount"):
            await service.create(amount="0.5", reference="late")
    assert pages == 3
    expected = sorted({item["reference"] for item in seen})
    assert expected == sorted(f"r{n}" for n in range(11))
    assert len(seen) == 11
    key = sort.removeprefix("-")
    values = [Decimal(i[key]) if key == "amount" else i[key] for i in seen]
    assert values == sorted(values, reverse=sort.startswith("-"))


async def test_filters_select_and_deleted_rows_are_not_there(service: Service) -> None:
    euro = await service.create(currency="EUR")
    dollar = await service.create(currency="USD")
    found = (await service.http.get(URL, params={"currency": "USD", "status": "pending"})).json()["data"]
    assert [item["id"] for item in found] == [dollar["id"]]
    assert (await service.http.get(URL, params={"status": "settled"})).json()["data"] == []
    async with service.container.database.unit() as unit:
        row = await unit.session.get(Transaction, (await service.rows(Transaction))[0].id)
        assert row is not None
        row.deleted_at = row.created_at
    left = {item["id"] for item in (await service.http.get(URL)).json()["data"]}
    gone = ({euro["id"], dollar["id"]} - left).pop()
    assert len(left) == 1
    frame(await service.http.get(f"{URL}/{gone}"), 404, "not_found")


@pytest.fixture
async def strange(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """An API with routes that go wrong, in the layers of the real one."""
    router = APIRouter()

    @router.get("/bug")
    async def bug() -> None:
        raise RuntimeError("secret detail postgresql://u:pw@h/d")

    @router.post("/lost-race")
    async def lost_race(unit: CurrentUnit) -> None:
        mine = (await service.rows(Transaction))[0]
        merged = await unit.session.get(Transaction, mine.id)
        assert merged is not None
        async with service.container.database.unit() as other:
            theirs = await other.session.get(Transaction, mine.id)
            assert theirs is not None
            theirs.reference = "faster"
        merged.reference = "too late"

    app = in_layers(create_routes(service.container, [router]), service.container)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_bug_is_500_and_tells_nothing(strange: httpx.AsyncClient, service: Service) -> None:
    answer = await strange.get("/bug")
    frame(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    [span] = service.spans("GET /bug")
    assert not span.status.is_ok
    labels = {"http_request_method": "GET", "http_route": "/bug", "http_response_status_code": "500"}
    assert service.metric("http_server_request_duration_seconds_count", labels) == 1


async def test_a_lost_race_is_409(strange: httpx.AsyncClient, service: Service) -> None:
    await service.create()
    frame(await strange.post("/lost-race"), 409, "conflict")
    [row] = await service.rows(Transaction)
    assert (row.reference, row.version) == ("faster", 2)


async def test_health_and_metrics(service: Service) -> None:
    body = (await service.http.get("/health")).json()["data"]
    assert body["status"] == "up"
    assert body["dependencies"].keys() == {"database", "cache", "queue", "disk", "files"}
    assert all(part["latencyMs"] >= 0 for part in body["dependencies"].values())
    assert (await service.http.get("/health/live")).status_code == 200
    assert (await service.http.get("/health/ready")).status_code == 200
    service.container.health.draining = True
    answer = await service.http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert (await service.http.get("/health/live")).status_code == 200
    plain = await service.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    await service.create()
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    full = await service.http.get("/metrics", headers=accept)
    assert full.headers["content-type"].startswith("application/openmetrics-text")
    assert 'trace_id="' in full.text
    assert full.text.endswith("# EOF\n")


async def test_openapi_states_the_contract(service: Service) -> None:
    schema = (await service.http.get("/openapi.json")).json()
    routes = schema["paths"]
    assert {URL, f"{URL}/{{transaction_id}}", "/health", "/health/live", "/health/ready"} <= routes.keys()
    create = routes[URL]["post"]
    assert create["tags"] == ["transactions"]
    assert {"201", "413", "422", "429", "503"} <= create["responses"].keys()
    reference = create["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/Failure"
    failure = schema["components"]["schemas"]["Failure"]
    assert failure["properties"].keys() == {"statusCode", "message", "data", "error", "meta"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    view = schema["components"]["schemas"]["TransactionView"]["properties"]
    assert view["amount"]["type"] == "string"
    assert {"createdAt", "settledAt"} <= view.keys()
