"""A thousand clients on one instance, and those among them that do not keep up."""

import asyncio
from collections import Counter

from tests.integration.service.harness import Service
from tests.integration.service.live.conftest import Start
from tests.integration.service.live.harness import SseClient, allow_files, happened, reached

CLIENTS = 1000
EVENTS = 20


async def connect(url: str, subject: str, number: int) -> list[SseClient]:
    gate = asyncio.Semaphore(50)

    async def one() -> SseClient:
        async with gate:
            client = await SseClient.connect(url, f"transaction.{subject}")
            await client.notice("ready", within=60)
            return client

    return list(await asyncio.gather(*(one() for _ in range(number))))


async def test_a_thousand_clients_get_every_event_once(start: Start, service: Service, subject: str) -> None:
    allow_files(4 * CLIENTS)
    api = await start()
    await (await SseClient.connect(api.url, f"transaction.{subject}")).close()  # what is made once is made
    before = api.rss
    clients = await connect(api.url, subject, CLIENTS)
    assert await api.metric("yardstick_live_clients", transport="sse") == CLIENTS
    for number in range(EVENTS):
        service.container.bus.publish(happened(subject, number=number))
    received = await asyncio.gather(*(client.until(EVENTS, within=60) for client in clients))
    per_client = (api.rss - before) / CLIENTS
    print(f"\n{CLIENTS} SSE clients: {per_client / 1024:.1f} KiB each, process {api.rss / 2**20:.0f} MiB")
    assert Counter(tuple(numbers) for numbers in received) == {tuple(range(EVENTS)): CLIENTS}
    assert len({tuple(event.id for event in client.events[1:]) for client in clients}) == 1
    assert per_client < 200 * 1024
    assert await api.metric("yardstick_live_dropped_total", transport="sse", reason="slow") == 0
    await asyncio.gather(*(client.close() for client in clients))

    async def empty() -> bool:
        return await api.metric("yardstick_live_clients", transport="sse") == 0

    await reached(empty)


async def test_a_client_that_reads_nothing_is_dropped_and_the_others_are_not(
    start: Start, service: Service, subject: str
) -> None:
    slow_number, rounds, large = 20, 400, "x" * 8000
    api = await start(LIVE_BUFFER_EVENTS=20)
    fast = await connect(api.url, subject, 5)
    slow = [
        await SseClient.connect(api.url, f"transaction.{subject}", reading=False, receive_buffer=4096)
        for _ in range(slow_number)
    ]
    before = peak = api.rss
    number = dropped = 0
    # How much the kernel takes for a client that reads nothing is its own affair: a few MiB at most.
    while number < rounds or (dropped < slow_number and number < 5 * rounds):
        service.container.bus.publish(happened(subject, number=number, large=large))
        number += 1
        # At the speed of the clients that do read: it is not they who are slow.
        await asyncio.gather(*(client.until(number) for client in fast))
        peak = max(peak, api.rss)
        if not number % 100:
            dropped = int(await api.metric("yardstick_live_dropped_total", transport="sse", reason="slow"))
    for client in fast:
        assert client.numbers == list(range(number))
    assert dropped == slow_number
    assert await api.metric("yardstick_live_clients", transport="sse") == len(fast)
    sent = number * len(large)
    grown = peak - before
    print(f"\n{slow_number} slow clients: {grown / 2**20:.1f} MiB more for {sent / 2**20:.1f} MiB each")
    # The window keeps all of them once; a client that is gone nothing.
    assert grown < 3 * sent + 20 * 2**20
    for client in (*fast, *slow):
        await client.close()
