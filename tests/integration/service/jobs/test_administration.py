"""Jobs in the hands of an operator: who may, what is shown, and what becomes of a job."""

import asyncio
import base64
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text, update

from service.db.jobs import presence
from service.db.jobs.effects import Effects, JobHandler
from service.db.jobs.presence import Presence
from service.db.jobs.record import JobRecord, Outcome
from service.features.transactions.settlement import SETTLEMENT
from service.settings import Settings
from tests.integration.service.harness import Service, eventually, running
from tests.integration.service.jobs.admin import PATH, TOKEN, Gate, Operator, bury, enqueue, job_of, now

Configure = Callable[..., Settings]
UNKNOWN = UUID(int=1)
ROUTES = [
    ("GET", ""),
    ("GET", "/stats"),
    ("GET", f"/{UNKNOWN}"),
    ("POST", f"/{UNKNOWN}/retry"),
    ("POST", "/retry"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/clean"),
    ("DELETE", f"/{UNKNOWN}"),
]


async def sql(service: Service, statement: str) -> None:
    async with service.container.database.unit() as unit:
        await unit.session.execute(text(statement))


async def change(service: Service, job_id: UUID, **values: object) -> None:
    async with service.container.database.unit() as unit:
        await unit.session.execute(update(JobRecord).where(JobRecord.job_id == job_id).values(**values))


async def outcomes(service: Service) -> dict[UUID, str | None]:
    return {row.job_id: row.outcome for row in await service.rows(JobRecord)}


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_asks_for_the_token(administered: Service, method: str, path: str) -> None:
    http = administered.http
    for header in (None, "Bearer", f"Basic {TOKEN}", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \xe9"):
        headers = {} if header is None else {b"authorization": header.encode("latin-1")}
        answer = await http.request(
            method, PATH + path, headers=headers, json={"all": True, "status": "dead"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="jobs"')
        assert TOKEN not in answer.text


async def test_without_a_token_there_are_no_such_routes(configure: Configure) -> None:
    async with running(configure()) as service:
        for method, path in ROUTES:
            answer = await service.http.request(
                method, PATH + path, headers={"authorization": f"Bearer {TOKEN}"}, content=b"{no JSON"
            )
            assert answer.status_code == 404
        document = (await service.http.get("/openapi.json")).json()
        assert not [path for path in document["paths"] if path.startswith(PATH)]


async def test_a_list_shows_jobs_where_they_are(administered: Service, operator: Operator) -> None:
    [waiting], [delayed] = await enqueue(administered), await enqueue(administered, delay=600)
    dead = await bury(administered, (await enqueue(administered))[0])
    strange = await bury(administered, body=b"no envelope")
    found = {UUID(one["id"]): one for one in await operator.listed()}
    assert {job_id: one["status"] for job_id, one in found.items()} == {
        waiting: "waiting", delayed: "delayed", dead: "dead", strange: "dead",
    }  # fmt: skip
    assert found[dead]["error"] == "ValueError: it cannot be"
    assert found[strange]["name"] is None
    for status, wanted in {
        "waiting": {waiting},
        "delayed": {delayed},
        "dead": {dead, strange},
        "active": set(),
    }.items():
        assert {UUID(one["id"]) for one in await operator.listed(status=status)} == wanted
    assert len(await operator.listed(name=SETTLEMENT.name)) == 3
    assert await operator.listed(name="transaction.refund.v1") == []
    assert await operator.listed(since=(now() + timedelta(hours=1)).isoformat()) == []
    assert len(await operator.listed(since=(now() - timedelta(hours=1)).isoformat())) == 4


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt", "dueAt", "-dueAt"])
async def test_pages_are_the_list(administered: Service, operator: Operator, sort: str) -> None:
    ids = await enqueue(administered, 7)
    await sql(administered, "UPDATE job SET due_at = created_at + (id % 3) * interval '1 s'")
    seen: list[dict[str, str]] = []
    query = {"sort": sort, "limit": "3"}
    while True:
        answer = (await operator.ask("GET", params=query)).json()
        seen += answer["data"]
        if answer["meta"]["page"]["nextCursor"] is None:
            break
        query["cursor"] = answer["meta"]["page"]["nextCursor"]
    assert sorted(UUID(one["id"]) for one in seen) == sorted(ids)
    column = sort.removeprefix("-")
    values = [one[column] for one in seen]
    assert values == sorted(values, reverse=sort.startswith("-"))
    if column == "createdAt":
        assert [UUID(one["id"]) for one in seen] == (ids if sort == column else ids[::-1])


@pytest.mark.parametrize(
    "query",
    [
        {"status": "done"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"}, {"name": "a\0"}, {"sort": "name"},
        {"limit": "101"}, {"cursor": "x"},
    ],
)  # fmt: skip
async def test_a_filter_that_is_none_is_refused(operator: Operator, query: dict[str, str]) -> None:
    assert await operator.refused("GET", params=query) == (422, "validation_failed")


async def test_a_job_is_shown_with_all_that_is_known_of_it(administered: Service, operator: Operator) -> None:
    [job_id] = await enqueue(administered)
    await bury(administered, job_id)
    job, found = await job_of(administered, job_id), await operator.data("GET", f"/{job_id}")
    assert found["payload"] == job.payload
    assert found["options"]["attempts"] == SETTLEMENT.options.attempts
    assert found["meta"]["userId"] == "system"
    assert [entry["error"] for entry in found["history"]] == ["ValueError: it cannot be"]
    assert found["body"] is None
    assert await operator.refused("GET", f"/{uuid4()}") == (404, "not_found")


@pytest.mark.parametrize("body", [b"not {an envelope", b"\xff\x00\xfe", b""])
async def test_a_malformed_message_is_shown_and_removed_but_not_retried(
    administered: Service, operator: Operator, body: bytes
) -> None:
    job_id = await bury(administered, body=body)
    shown = (await operator.data("GET", f"/{job_id}"))["body"]
    content = shown["content"].encode()
    assert (base64.b64decode(content) if shown["encoding"] == "base64" else content) == body
    assert shown["encoding"] == ("base64" if b"\xff" in body else "utf-8")
    answer = await operator.ask("POST", f"/{job_id}/retry")
    assert answer.status_code == 409
    assert "no job envelope" in answer.json()["message"]
    assert await operator.data("POST", "/retry", json={"all": True}) == {"jobs": 0}
    assert (await operator.data("DELETE", f"/{job_id}"))["status"] == "removed"
    assert await outcomes(administered) == {job_id: Outcome.REMOVED}


async def test_a_dead_job_that_is_retried_is_done(administered: Service, operator: Operator) -> None:
    created = await administered.create()
    [row] = await administered.rows(JobRecord)
    await sql(administered, "UPDATE job SET interruptions = 11, published_at = now()")
    await bury(administered, row.job_id)
    async with administered.working():
        found = await operator.data("POST", f"/{row.job_id}/retry")
        assert (found["attempts"], found["interruptions"], found["finishedAt"]) == (0, 0, None)
        assert [entry.get("event") for entry in found["history"]] == [None, "retried by hand"]
        await administered.settled(created["id"])
    assert await outcomes(administered) == {row.job_id: Outcome.COMPLETED}
    assert await operator.refused("POST", f"/{row.job_id}/retry") == (409, "conflict")
    assert await operator.refused("DELETE", f"/{row.job_id}") == (409, "conflict")


async def test_dead_letters_are_retried_by_name_or_all(administered: Service, operator: Operator) -> None:
    ids = await enqueue(administered, 4)
    for job_id in ids:
        await bury(administered, job_id)
    await change(administered, ids[0], name="email.welcome.v1")
    await change(administered, ids[3], outcome="failed")
    assert await operator.data("POST", "/retry", json={"name": "email.welcome.v1"}) == {"jobs": 1}
    assert [job_id for job_id, outcome in (await outcomes(administered)).items() if outcome is None] == ids[
        :1
    ]
    assert await operator.data("POST", "/retry", json={"all": True}) == {"jobs": 2}
    assert await outcomes(administered) == dict.fromkeys(ids[:3]) | {ids[3]: Outcome.FAILED}
    for wrong in ({}, {"all": False}, {"all": True, "name": "a.b.v1"}):
        assert await operator.refused("POST", "/retry", json=wrong) == (422, "validation_failed")


async def test_a_removed_job_has_no_effect_when_it_is_delivered(
    administered: Service, operator: Operator
) -> None:
    await administered.create()
    [row] = await administered.rows(JobRecord)
    job = await job_of(administered, row.job_id)
    for _ in range(2):
        assert (await operator.data("DELETE", f"/{row.job_id}"))["status"] == "removed"
    gate = Gate()
    gate.open.set()
    counter = administered.container.telemetry.metrics.counter("test_late", "For this test.", ("job_name",))
    late = Effects(administered.container.database, [JobHandler(SETTLEMENT, gate.handle)], counter)
    await late.perform(job)
    assert gate.effects == 0
    assert await outcomes(administered) == {row.job_id: Outcome.REMOVED}
    assert await operator.refused("POST", f"/{row.job_id}/retry") == (409, "conflict")


async def test_a_job_that_has_its_effect_wins_against_its_removal(
    administered: Service, operator: Operator
) -> None:
    [job_id] = await enqueue(administered)
    gate = Gate()
    async with gate.performing(administered, await job_of(administered, job_id)) as task:
        removal = asyncio.create_task(operator.refused("DELETE", f"/{job_id}"))
        await waits_for_lock(administered)
        gate.open.set()
        assert await removal == (409, "conflict")
        await task
    assert (gate.effects, await outcomes(administered)) == (1, {job_id: Outcome.COMPLETED})


async def test_the_removal_of_a_job_that_takes_long_says_so(
    administered: Service, operator: Operator
) -> None:
    [job_id] = await enqueue(administered)
    gate = Gate()
    async with gate.performing(administered, await job_of(administered, job_id)):
        answer = await operator.ask("DELETE", f"/{job_id}")
        assert answer.status_code == 409
        assert "is running" in answer.json()["message"]


async def waits_for_lock(service: Service) -> None:
    async def look() -> bool:
        async with service.container.database.unit() as unit:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return bool(await unit.session.scalar(text(waiting)))

    await eventually(look)


async def test_cleaning_keeps_what_a_late_delivery_must_find(
    administered: Service, operator: Operator
) -> None:
    ids = await enqueue(administered, 4)
    for job_id in ids[:3]:
        await bury(administered, job_id)
    await change(administered, ids[0], finished_at=now() - timedelta(hours=2))
    await change(administered, ids[1], finished_at=now() - timedelta(minutes=9))
    clean = {"status": "dead", "graceSeconds": 500}
    assert await operator.data("POST", "/clean", json=clean | {"status": "completed"}) == {"jobs": 0}
    assert await operator.data("POST", "/clean", json=clean) == {"jobs": 2}
    assert await operator.data("POST", "/clean", json=clean) == {"jobs": 0}
    assert await outcomes(administered) == {ids[1]: Outcome.REMOVED, ids[2]: Outcome.DEAD, ids[3]: None}
    for wrong in ({"status": "waiting"}, {"status": "dead", "graceSeconds": -1}, {}):
        assert await operator.refused("POST", "/clean", json=wrong) == (422, "validation_failed")


async def test_statistics_count_by_domain_and_in_all(administered: Service, operator: Operator) -> None:
    ids = await enqueue(administered, 5)
    await enqueue(administered, delay=600)
    await bury(administered, ids[0])
    await bury(administered, body=b"junk")
    await change(administered, ids[1], name="email.welcome.v1")
    worker = Presence(administered.container.database, name="w1", concurrency=4, seconds=60)

    async def look(_: object) -> None:
        await worker.beat()
        found = await operator.stats()
        counts = {
            one["domain"]: {k: v for k, v in one.items() if v and k != "domain"} for one in found["domains"]
        }
        assert counts == {
            "_malformed": {"dead": 1},
            "email": {"waiting": 1},
            "transaction": {"waiting": 2, "active": 1, "delayed": 1, "dead": 1},
        }
        assert {k: v for k, v in found["total"].items() if v} == {
            "waiting": 3,
            "active": 1,
            "delayed": 1,
            "dead": 2,
        }
        [mine] = found["workers"]
        assert (mine["name"], mine["concurrency"], mine["running"]) == ("w1", 4, 1)
        assert (found["pressure"]["depth"], found["pressure"]["saturation"]) == (4, 0.25)
        [active] = await operator.listed(status="active")
        assert UUID(active["id"]) == ids[2]

    await worker.performing(look)(await job_of(administered, ids[2]))
    await worker.leave()
    assert (await operator.stats())["workers"] == []


async def test_a_dead_workers_presence_ages_out(administered: Service) -> None:
    database = administered.container.database
    dead = Presence(database, name="dead", concurrency=1, seconds=60)
    live = Presence(database, name="live", concurrency=1, seconds=60)
    await dead.beat()
    await live.beat()
    await sql(
        administered, "UPDATE worker_presence SET expires_at = now() - interval '1 s' WHERE name = 'dead'"
    )
    async with database.unit() as unit:
        assert [worker.name for worker in await presence.workers(unit)] == ["live"]
    await live.beat()
    assert [row.name for row in await administered.rows(presence.WorkerPresence)] == ["live"]
    # It was not dead after all.
    await dead.beat()
    assert {row.name for row in await administered.rows(presence.WorkerPresence)} == {"live", "dead"}


async def test_every_change_leaves_a_line(
    administered: Service, operator: Operator, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    one, two = await enqueue(administered, 2)
    await bury(administered, one)
    await operator.data("POST", f"/{one}/retry")
    await operator.data("DELETE", f"/{two}")
    await operator.data("POST", "/retry", json={"all": True})
    await operator.data("POST", "/pause", json={"domain": "email", "reason": "provider is down"})
    await operator.data("POST", "/resume", json={"domain": "email"})
    await operator.data("POST", "/clean", json={"status": "dead"})
    await operator.refused("DELETE", f"/{uuid4()}")
    lines = {line["event"]: line for line in log_lines()}
    changes = {
        "job.retried_by_hand",
        "job.removed",
        "jobs.retried",
        "queue.paused",
        "queue.resumed",
        "jobs.cleaned",
    }
    assert changes <= lines.keys()
    assert (lines["job.removed"]["jobId"], lines["queue.paused"]["reason"]) == (str(two), "provider is down")
    assert all(lines[event]["requestId"] for event in changes)
    assert TOKEN not in str(log_lines())
