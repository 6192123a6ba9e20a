"""One campaign: the service under load on an engine, and everything that can die dying, again and again."""

import asyncio
import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import asyncpg
import httpx

from compose.native import Stack
from service.tasks import end
from tests.faults.kills import roles
from tests.faults.kills.account import Account, account, drained
from tests.faults.kills.load import Load
from tests.faults.kills.members import Member, Nursery
from tests.faults.kills.recovery import Interval, Recovery, marks, recoveries
from tests.ports import free_port

Engine = Literal["redis", "rabbitmq", "file"]

LEASE, HEARTBEAT = 5.0, 3
"""Seconds; shorter than the defaults, so that a kill that is not recovered from shows sooner."""
NOTICED = {"redis": LEASE, "file": LEASE, "rabbitmq": 2.0 * HEARTBEAT}
"""How long a dead or a hanging worker can go unnoticed, by engine."""
RECONNECT = 6.0
"""The longest pause of a process before it looks again for what was away."""
RATE = float(os.environ.get("KILLS_RATE", "10"))
"""New transactions a second."""
STALLED = 60.0
_VICTIMS = ("api-1", "api-2", "worker-1", "worker-1", "worker-2", "worker-2", "relay-1")


@dataclass
class Outcome:
    """What a campaign did and what came of it. Times are seconds."""

    engine: Engine
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    recovered: list[Recovery] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    account: Account | None = None
    sent: int = 0
    accepted: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    load_seconds: float = 0.0
    drain_seconds: float = 0.0
    seconds: float = 0.0


class Campaign:
    """One run on servers of its own, below `folder`."""

    def __init__(self, engine: Engine, kills: int, seed: int, folder: Path) -> None:
        self.engine, self.kills, self.folder = engine, kills, folder
        self.outcome = Outcome(engine, seed)
        self._random = random.Random(seed)
        self._outages: list[Interval] = []
        self._members: dict[str, Member] = {}

    async def run(self) -> Outcome:
        began = time.monotonic()
        only = ("postgres", "redis", "migrate", *(("rabbitmq",) if self.engine == "rabbitmq" else ()))
        self._stack = Stack(self.folder / "stack", only=only)
        await asyncio.to_thread(self._stack.__enter__)
        try:
            await self._on_servers()
        finally:
            await asyncio.to_thread(self._stack.down)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _on_servers(self) -> None:
        outcome, url = self.outcome, self._stack.endpoints()["postgres"]
        poison = await _prepare(url)
        ports = [free_port() for _ in range(4)]
        async with self._alive(ports):
            urls = [f"http://127.0.0.1:{port}" for port in ports[:2]]
            await _ready(urls)
            async with Load(urls, RATE) as load:
                await self._destroy(load)
            outcome.drain_seconds = await drained(url, STALLED)
            outcome.account = await account(url, load, poison)
        outcome.sent, outcome.accepted = load.sent, len(load.accepted)
        outcome.statuses, outcome.load_seconds = load.statuses, load.seconds
        deaths = [death for member in self._members.values() for death in member.deaths]
        outcome.kills = Counter(f"{roles.kind_of(death.role)} {death.moment}" for death in deaths)
        outcome.interrupted = sum(len(death.held) for death in deaths)
        outcome.recovered, outcome.never = recoveries(deaths, marks(self.folder, "T"), self._outages)
        outcome.exits = [f"{m.role} exit {code}" for m in self._members.values() for code in m.exits]

    async def _destroy(self, load: Load) -> None:
        """Kill after kill, and every so often something else that breaks at the same time."""
        every = max(5, min(10, self.kills // 4))
        faults = ["broker", "freeze", "postgres stop", "postgres kill"]
        if self.engine == "file":
            faults.remove("broker")
        breaking: asyncio.Task[None] | None = None
        broken = 0
        try:
            await load.under_way(RATE)
            for number in range(1, self.kills + 1):
                await asyncio.sleep(self._random.uniform(0.05, 1.2))
                await self._kill_one()
                if number % every == 0 and (breaking is None or breaking.done()):
                    if breaking is not None:
                        breaking.result()
                    breaking = asyncio.create_task(self._break(faults[broken % len(faults)]), name="fault")
                    broken += 1
            if breaking is not None:
                await breaking
        finally:
            await end(breaking)

    async def _kill_one(self) -> None:
        standing = [role for role in _VICTIMS if not self._members[role].frozen]
        member = self._members[self._random.choice(standing)]
        moment = self._random.choice(("random", *roles.POINTS[member.kind]))
        await member.kill(moment)

    async def _break(self, fault: str) -> None:
        began = time.monotonic()
        if fault == "freeze":
            member = self._members[self._random.choice(("worker-1", "worker-2"))]
            await member.freeze(NOTICED[self.engine] + 3)
            # Whatever was with it is noticed only now, at the latest.
            over = NOTICED[self.engine]
        else:
            name, _, how = fault.partition(" ")
            name = self.engine if name == "broker" else name
            await asyncio.to_thread(self._stack.stop if how == "stop" else self._stack.kill, name)
            await asyncio.sleep(self._random.uniform(0, 2))
            await asyncio.to_thread(self._stack.start, name)
            over = RECONNECT
        self.outcome.faults[fault] += 1
        self._outages.append((began, time.monotonic() + over))

    @asynccontextmanager
    async def _alive(self, ports: list[int]) -> AsyncIterator[None]:
        """All roles are played inside the block."""
        variables = environment(self.engine, self._stack.endpoints(), self.folder)
        async with Nursery() as nursery:
            numbered = zip(("api-1", "api-2", "worker-1", "worker-2", "relay-1"), [*ports, 0], strict=True)
            for role, port in numbered:
                own = {f"{'APP' if role.startswith('api') else 'WORKER'}_PORT": str(port)} if port else {}
                self._members[role] = Member(nursery, role, variables | own, self.folder)
            living = [asyncio.create_task(m.live(), name=m.role) for m in self._members.values()]
            try:
                yield
            finally:
                await end(*living)


def environment(engine: Engine, endpoints: dict[str, str], folder: Path, **changes: object) -> dict[str, str]:
    """The variables of a process. What would give a lost job to the queue again is put off for a day."""
    variables: dict[str, object] = {
        "APP_ENV": "test",
        "APP_DRAIN_NOTICE_SECONDS": 0,
        "DATABASE_URL": endpoints["postgres"],
        "REDIS_URL": endpoints["redis"],
        "QUEUE_ENGINE": engine,
        "QUEUE_FILE_PATH": folder / "queue.db",
        "QUEUE_LEASE_SECONDS": LEASE,
        "QUEUE_RABBITMQ_HEARTBEAT_SECONDS": HEARTBEAT,
        "OUTBOX_REPUBLISH_SECONDS": 86_400,
        "RATE_LIMIT_DEFAULT": "100000000/hour",
        "TELEMETRY_OTLP_ENDPOINT": "",
        "TELEMETRY_LOG_SINK": "stdout",
        "FILES_ROOT": folder / "files",
        **changes,
    }
    if "rabbitmq" in endpoints:
        variables["QUEUE_RABBITMQ_URL"] = endpoints["rabbitmq"]
    return {name: str(value) for name, value in variables.items()}


async def _prepare(url: str) -> list[uuid.UUID]:
    """The table of effects, and three jobs that are to be dead letters: enqueued as by another version."""
    poison = {
        uuid.uuid4(): ("transaction.settlement.v9", {"transactionId": str(uuid.uuid4())}),
        uuid.uuid4(): ("maintenance.nobody.v1", {}),
        uuid.uuid4(): ("maintenance.tally.v1", {}),
    }
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(roles.EFFECTS)
        for number, (job, (name, payload)) in enumerate(poison.items(), 1):
            await connection.execute(
                "INSERT INTO job (id, job_id, name, payload) VALUES ($1, $2, $3, $4)",
                number, job, name, json.dumps(payload),
            )  # fmt: skip
    finally:
        await connection.close()
    return list(poison)


async def _ready(urls: list[str]) -> None:
    async with asyncio.timeout(240), httpx.AsyncClient() as http:
        for url in urls:
            while True:
                try:
                    if (await http.get(f"{url}/health/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
