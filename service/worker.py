"""The worker: `python -m service.worker`. Runs jobs, relays the outbox, and serves health and metrics."""

import asyncio
import os
import socket
import sys

from service.app import operated
from service.container import Container
from service.db.jobs.effects import Effects
from service.db.jobs.failures import Failures
from service.db.jobs.keeping import Keeping
from service.db.jobs.pausing import Pausing
from service.db.jobs.presence import Presence
from service.db.jobs.relay import Relay, RelayMetrics
from service.infra.queues.runner import JobRunner
from service.jobs import job_handlers
from service.process import run
from service.sampling import Sampler
from service.settings import Settings
from service.tasks import end, first_of


async def work(settings: Settings, stopping: asyncio.Event) -> None:
    """Work until `stopping`, then drain: fetch no more, finish the jobs in flight, stop relaying, close."""
    async with operated(
        settings, "worker", host=settings.worker.host, port=settings.worker.port
    ) as container:
        await run_jobs(container, stopping)


async def run_jobs(container: Container, stopping: asyncio.Event) -> None:
    """The worker without its port: queue, relay and gauges, until `stopping`."""
    settings = container.settings
    metrics = container.telemetry.metrics
    keeping = Keeping(settings.outbox, container.database, metrics)
    handlers = job_handlers(container, keeping)
    for handler in handlers:
        container.jobs.metrics.series(handler.kind.name)  # present from zero on, for rates and alerts
    duplicates = metrics.counter(
        "jobs_duplicate", "Deliveries of jobs that had ended before, and did nothing.", ("job_name",)
    )
    presence = Presence(
        container.database,
        name=settings.telemetry.instance_id or f"{socket.gethostname()}:{os.getpid()}",
        concurrency=settings.queue.concurrency,
        seconds=settings.queue.sample_seconds,
    )
    pausing = Pausing(container.database, container.queue, metrics, seconds=settings.queue.sample_seconds)
    runner = JobRunner(
        presence.performing(Effects(container.database, handlers, duplicates).perform),
        Failures(container.database),
        container.jobs,
        interruptions=settings.queue.interruptions,
    )
    relay = Relay(
        settings.outbox,
        container.database,
        container.queue,
        container.jobs,
        RelayMetrics(metrics),
        held=lambda: pausing.now.domains,
    )
    container.jobs.metrics.concurrency.set(settings.queue.concurrency)
    await pausing.begin()
    working = [
        asyncio.create_task(
            container.queue.consume(pausing.holding_back(runner), concurrency=settings.queue.concurrency),
            name="consumer",
        ),
        asyncio.create_task(relay.run(), name="relay"),
    ]
    background = [
        asyncio.create_task(stopping.wait(), name="stopping"),
        asyncio.create_task(container.health.await_dependencies(), name="await-dependencies"),
        asyncio.create_task(Sampler(container).run(), name="sampler"),
        asyncio.create_task(pausing.run(), name="pausing"),
        asyncio.create_task(presence.run(), name="presence"),
        asyncio.create_task(keeping.run(), name="keeping"),
    ]
    try:
        # Neither ends by itself: if one does, it has failed, and the process ends with its error.
        await first_of(*working, background[0])
        container.health.draining = True
        await container.queue.stop(settings.app.drain_seconds)
        relay.stop()
        await asyncio.gather(*working)
    finally:
        await end(*working, *background)
        await presence.leave()


if __name__ == "__main__":
    sys.exit(run(work))
