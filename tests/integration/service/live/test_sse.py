"""Server-sent events from real processes: what a client sees, misses, and is told."""

import asyncio
from uuid import uuid4

import httpx

from tests.integration.service.harness import BODY, Service
from tests.integration.service.live.conftest import Start
from tests.integration.service.live.harness import SseClient, happened, reached

SSE = "text/event-stream; charset=utf-8"


async def publish(service: Service, subject: str, *numbers: int, user: str = "") -> None:
    for number in numbers:
        service.container.bus.publish(happened(subject, number=number, user=user))


async def test_a_transaction_is_followed_from_creation_to_settlement_in_another_process(start: Start) -> None:
    api = await start()
    async with httpx.AsyncClient(base_url=api.url) as http:
        created = (await http.post("/v1/transactions", json=BODY)).json()["data"]
        client = await SseClient.connect(api.url, f"transaction.{created['id'].upper()}")
        assert (client.status, client.headers["content-type"]) == (200, SSE)
        assert client.headers["cache-control"] == "no-store"
        await client.notice("ready")
        await start("service.worker")
        settled = await client.notice("transaction.settled")
    assert settled.data["subject"] == created["id"]
    assert settled.data["data"] == {
        "status": "settled", "version": created["version"] + 1, "amount": "12.50", "currency": "EUR",
    }  # fmt: skip
    assert settled.data["at"] > created["createdAt"]
    assert "user" not in settled.data
    await client.close()


async def test_two_instances_share_events_and_a_client_sees_its_own_alone(
    start: Start, service: Service, subject: str
) -> None:
    apis = [await start(), await start()]
    mine = [await SseClient.connect(api.url, f"transaction.{subject}", "user.alice") for api in apis]
    other = [await SseClient.connect(api.url, f"transaction.{uuid4()}") for api in apis]
    for client in (*mine, *other):
        await client.notice("ready")
    await publish(service, subject, *range(20), user="alice")
    await publish(service, str(uuid4()), 20, user="alice")
    await publish(service, str(uuid4()), 21, user="bob")
    await publish(service, subject, 22)
    for client in mine:
        # In two of its topics, and yet once.
        assert await client.until(22) == [*range(21), 22]
    assert [client.numbers for client in other] == [[], []]
    ids = [[event.id for event in client.events if event.name != "ready"] for client in mine]
    assert ids[0] == ids[1]
    for client in (*mine, *other):
        await client.close()


async def test_a_client_that_comes_back_elsewhere_misses_nothing_and_sees_nothing_twice(
    start: Start, service: Service, subject: str
) -> None:
    apis = [await start(), await start()]
    seen: list[int] = []
    done = asyncio.Event()

    async def produce() -> None:
        for number in range(600):
            await publish(service, subject, number)
            await asyncio.sleep(0.002)
        done.set()

    first = await SseClient.connect(apis[0].url, f"transaction.{subject}")
    last = (await first.notice("ready")).id
    await first.close()
    producing = asyncio.create_task(produce())
    for turn in range(200):
        client = await SseClient.connect(apis[turn % 2].url, f"transaction.{subject}", after=last)
        ready = await client.notice("ready")
        assert ready.retry == 3000
        await asyncio.sleep(0.03)
        await client.close()
        assert "reset" not in client.names
        seen += client.numbers
        last = client.last_id
        if done.is_set() and len(seen) >= 600:
            break
    await producing
    assert seen == list(range(600))
    assert sum([await api.metric("yardstick_live_resumes_total", result="resumed") for api in apis]) >= 5


async def test_a_gap_that_is_no_longer_kept_is_said(start: Start, service: Service, subject: str) -> None:
    api = await start(LIVE_KEEP_EVENTS=10)
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await publish(service, subject, 0)
    await client.until(1)
    await client.close()
    await publish(service, subject, *range(1, 30))

    async def arrived() -> bool:
        return await api.metric("yardstick_live_received_total") == 30

    await reached(arrived)
    back = await SseClient.connect(api.url, f"transaction.{subject}", after=client.last_id)
    reset = await back.notice("reset")
    assert reset.data == {"reason": "expired"}
    await publish(service, subject, 99)
    assert await back.until(1) == [99]
    await back.close()
    assert await api.metric("yardstick_live_resumes_total", result="reset") == 1


async def test_heartbeats_keep_a_silent_stream_open(start: Start, subject: str) -> None:
    api = await start(LIVE_HEARTBEAT_SECONDS=0.1)
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.wait(lambda: client.comments >= 3)
    assert client.names == ["ready"]
    await client.close()


async def test_a_garbage_position_is_a_reset(start: Start, subject: str) -> None:
    api = await start()
    for after in (
        "garbage",
        "-1-0",
        "1" * 17 + "-0",
        "9999999999999999-0",
        "1.5",
        "0-0-0",
        "a" * 5000,
    ):
        client = await SseClient.connect(api.url, f"transaction.{subject}", after=after)
        assert (await client.notice("reset")).data == {"reason": "unknown"}, after
        await client.close()


async def test_the_latency_histogram_knows_the_first_byte_alone(start: Start, subject: str) -> None:
    api = await start()
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    labels = {"http_request_method": "GET", "http_route": "/v1/stream", "http_response_status_code": "200"}
    assert await api.metric("http_server_request_duration_seconds_count", **labels) == 1
    assert await api.metric("yardstick_live_clients", transport="sse") == 1
    await asyncio.sleep(1)
    await client.close()

    async def left() -> bool:
        return await api.metric("yardstick_live_clients", transport="sse") == 0

    await reached(left)
    assert await api.metric("http_server_request_duration_seconds_count", **labels) == 1
    assert await api.metric("http_server_request_duration_seconds_sum", **labels) < 1
    assert await api.metric("http_server_active_requests") == 0


async def test_a_drain_sends_clients_elsewhere_at_once(start: Start, subject: str) -> None:
    api = await start(APP_DRAIN_SECONDS=20)
    clients = [await SseClient.connect(api.url, f"transaction.{subject}") for _ in range(20)]
    for client in clients:
        await client.notice("ready")
    seconds = await api.stop()
    for client in clients:
        await client.end()
        last = client.events[-1]
        assert (last.name, last.data) == ("closing", {"reason": "draining"})
        assert last.retry is not None
        assert 0 < last.retry <= 3000
        await client.close()
    assert api.handle.returncode == 0
    assert seconds < 10, "the streams held up the drain"


async def test_what_may_not_be_seen(start: Start) -> None:
    api = await start(LIVE_MAX_TOPICS=3, LIVE_MAX_CLIENTS=1)
    known = f"topic=transaction.{uuid4()}"
    async with httpx.AsyncClient(base_url=api.url) as http:

        async def ask(query: str, user: str | None = "alice") -> tuple[int, str]:
            headers = {} if user is None else {"X-User-Id": user}
            answer = await http.get(f"/v1/stream?{query}", headers=headers)
            frame = answer.json()
            assert frame["statusCode"] == answer.status_code
            return answer.status_code, frame["error"]["code"]

        assert await ask("topic=user.bob") == (403, "forbidden")
        assert await ask(f"{known}&topic=user.bob") == (403, "forbidden")
        assert await ask(known, None) == (401, "unauthenticated")
        assert await ask(known, "a b") == (401, "unauthenticated")
        assert await ask(known, "a" * 65) == (401, "unauthenticated")
        for topic in (
            "",
            "nonsense",
            "transaction.",
            "transaction.*",
            "user.*",
            "**",
            "transaction." + "a" * 9999,
        ):
            assert await ask(f"topic={topic}") == (422, "validation_failed"), topic
        assert await ask("&".join([known] * 4)) == (422, "validation_failed")
        client = await SseClient.connect(api.url)
        assert (await client.notice("ready")).data["topics"] == ["user.alice"]
        assert await ask(known) == (503, "unavailable")
        assert (await http.post("/v1/stream")).status_code == 405
        await client.close()


async def test_without_authentication_there_are_no_streams(start: Start) -> None:
    api = await start(LIVE_ACCESS="off")
    async with httpx.AsyncClient(base_url=api.url) as http:
        answer = await http.get("/v1/stream", headers={"X-User-Id": "alice"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
